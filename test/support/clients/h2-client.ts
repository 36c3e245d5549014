import { once } from 'node:events';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type OutgoingHttpHeaders,
  type SecureClientSessionOptions,
} from 'node:http2';
import { ca } from '../servers/certificate.js';
import { getPassword, type Username } from '../servers/seed.js';
import { EventCollector } from './event-collector.js';
import { type Answer, type Asked, sendBody, toAnswer, toBody, toHeaders } from './exchange.js';

/** What `POST /login` answers, as far as tests use it. */
export interface Login {
  readonly accessToken: string;
  readonly refreshToken: string;
}

/** An open event stream over HTTP/2. */
export class H2Stream extends EventCollector {
  readonly stream: ClientHttp2Stream;
  status = 0;
  headers: Readonly<Record<string, string>> = {};

  private constructor(stream: ClientHttp2Stream) {
    super();
    this.stream = stream;
    stream.on('data', (bytes: Buffer) => this.feed(bytes));
    stream.on('error', () => {}); // Its close follows.
    stream.once('close', () => this.end());
  }

  /** Settles with the head of the answer, but listens from the beginning, as `H2Client.ask` reads. */
  static async open(stream: ClientHttp2Stream): Promise<H2Stream> {
    const opened = new H2Stream(stream);
    const { status, headers } = await readHead(stream);
    opened.status = status;
    opened.headers = headers;
    return opened;
  }

  /** Leaves without a word. */
  abort(): void {
    this.stream.close(constants.NGHTTP2_CANCEL);
  }
}

/** One HTTP/2 connection of Node's own client, which knows nothing of Herald. */
export class H2Client {
  readonly session: ClientHttp2Session;
  readonly #token = new Map<Username, Promise<Login>>();

  private constructor(session: ClientHttp2Session) {
    this.session = session;
    session.on('error', () => {}); // Its close follows.
  }

  /** Begins to connect. When that fails, so do the requests. */
  static open(url: string, options: SecureClientSessionOptions = {}): H2Client {
    return new H2Client(connect(url, { ca, ...options }));
  }

  static async connect(url: string, options: SecureClientSessionOptions = {}): Promise<H2Client> {
    const client = H2Client.open(url, options);
    await once(client.session, 'connect');
    return client;
  }

  /** Ends politely: what is open may finish. */
  async close(): Promise<void> {
    if (this.session.destroyed) return;
    const closed = once(this.session, 'close');
    this.session.close();
    await closed;
  }

  /** Leaves at once, whatever is open. */
  destroy(): void {
    this.session.destroy();
  }

  async ask(method: string, path: string, options: Asked = {}): Promise<Answer> {
    const stream = this.request(method, path, options);
    // Read from the beginning: to whoever begins after the head, a body that came in one piece with
    // it is a stream that was destroyed, on Node 24 and 26.
    const [{ status, headers }, text] = await Promise.all([readHead(stream), readText(stream)]);
    return toAnswer(status, headers, text);
  }

  /** Up to the head of the answer. Rejects when there is none. */
  async send(method: string, path: string, options: Asked = {}) {
    const stream = this.request(method, path, options);
    return { ...(await readHead(stream)), stream };
  }

  /** A request whose answer the caller reads. */
  request(method: string, path: string, options: Asked = {}): ClientHttp2Stream {
    const head = { ':method': method, ':path': path, ...toHeaders(options) };
    const body = toBody(options);
    const stream = this.session.request(head, { endStream: body === undefined });
    if (body !== undefined) sendBody(stream, body);
    return stream;
  }

  async login(username: Username): Promise<Login> {
    const json = { username, password: getPassword(username) };
    const { status, body, text } = await this.ask('POST', '/login', { json });
    if (status !== 200) throw new Error(`login failed: ${text}`);
    return body as unknown as Login;
  }

  /** An access token of one login per user and connection. */
  async accessToken(username: Username): Promise<string> {
    const login = this.#token.get(username) ?? this.login(username);
    this.#token.set(username, login);
    return (await login).accessToken;
  }

  /** The path of a stream that was not opened yet. */
  async streamPath(username: Username): Promise<string> {
    const bearer = await this.accessToken(username);
    const { status, body, text } = await this.ask('POST', '/stream/token', { bearer });
    if (status !== 200) throw new Error(`no stream token: ${text}`);
    return `/stream/live/${body['streamToken']}`;
  }

  /** Opens a stream as a browser does. */
  async openStream(path: string, headers: OutgoingHttpHeaders = {}): Promise<H2Stream> {
    const accept = { accept: 'text/event-stream', ...headers };
    return H2Stream.open(this.request('GET', path, { headers: accept }));
  }

  /** A new stream that an access token opens, after its `stream.open`. */
  async listenAs(bearer: string, headers: OutgoingHttpHeaders = {}): Promise<H2Stream> {
    const authorization = `Bearer ${bearer}`;
    const stream = await this.openStream('/stream/live', { authorization, ...headers });
    await stream.opening();
    return stream;
  }

  /** A new stream of a user, after its `stream.open`. */
  async listen(username: Username, headers: OutgoingHttpHeaders = {}): Promise<H2Stream> {
    const stream = await this.openStream(await this.streamPath(username), headers);
    await stream.opening();
    return stream;
  }
}

export function readHead(
  stream: ClientHttp2Stream,
): Promise<{ status: number; headers: Record<string, string> }> {
  return new Promise((resolve, reject) => {
    stream.on('error', reject);
    stream.once('close', () => reject(new Error('the stream ended without an answer')));
    stream.once('response', (given) => {
      const { ':status': status = 0, ...rest } = given;
      resolve({ status, headers: rest as Record<string, string> });
    });
  });
}

function readText(stream: ClientHttp2Stream): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.once('end', () => {
      // Node ends a stream that was cancelled as one that is complete.
      if (stream.rstCode === constants.NGHTTP2_NO_ERROR) resolve(Buffer.concat(chunks).toString());
      else reject(new Error(`the stream was reset with ${stream.rstCode}`));
    });
    stream.once('error', reject);
    stream.once('close', () => reject(new Error('the stream ended within its answer')));
  });
}
