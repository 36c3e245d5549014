import { once } from 'node:events';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type OutgoingHttpHeaders,
  type SecureClientSessionOptions,
} from 'node:http2';
import { observeH2 } from '../openapi/observer.js';
import { ca } from '../servers/certificate.js';
import { getPassword, type Username } from '../servers/seed.js';
import { withDeadline } from '../with-deadline.js';
import { EventCollector } from './event-collector.js';
import {
  type Answer,
  type RequestParts,
  sendBody,
  toAnswer,
  toBody,
  toHeaders,
} from './exchange.js';

/** The members of a `POST /login` response that tests use. */
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
    stream.on('error', () => {}); // 'close' follows.
    stream.once('close', () => this.end());
  }

  /** Settles after the response head. Collects events from the start, for the reason in `H2Client.ask`. */
  static async open(stream: ClientHttp2Stream): Promise<H2Stream> {
    const opened = new H2Stream(stream);
    const { status, headers } = await readHead(stream);
    opened.status = status;
    opened.headers = headers;
    return opened;
  }

  /** Resets the stream with CANCEL. */
  abort(): void {
    this.stream.close(constants.NGHTTP2_CANCEL);
  }
}

/** An HTTP/2 connection of Node's client, independent of Herald's code. */
export class H2Client {
  readonly session: ClientHttp2Session;
  readonly #port: number;
  readonly #logins = new Map<Username, Promise<Login>>();

  private constructor(session: ClientHttp2Session, port: number) {
    this.session = session;
    this.#port = port;
    session.on('error', () => {}); // 'close' follows.
  }

  /** Starts to connect. When the connection fails, its requests reject. */
  static open(url: string, options: SecureClientSessionOptions = {}): H2Client {
    return new H2Client(connect(url, { ca, ...options }), Number(new URL(url).port));
  }

  static async connect(url: string, options: SecureClientSessionOptions = {}): Promise<H2Client> {
    const client = H2Client.open(url, options);
    await withDeadline(once(client.session, 'connect'), `a connection to ${url}`);
    return client;
  }

  /** Closes the connection after its open streams have finished. */
  async close(): Promise<void> {
    if (this.session.destroyed) return;
    const closed = once(this.session, 'close');
    this.session.close();
    await withDeadline(closed, 'the end of an HTTP/2 connection');
  }

  /** Closes the connection and all its open streams at once. */
  destroy(): void {
    this.session.destroy();
  }

  async ask(method: string, path: string, options: RequestParts = {}): Promise<Answer> {
    const stream = this.request(method, path, options);
    // Read from the start: on Node 24 and 26 a stream whose body arrived together with the head looks
    // destroyed to a reader that is attached after the head.
    const response = Promise.all([readHead(stream), readText(stream)]);
    const missing = `the end of the response to ${method} ${path}`;
    const [{ status, headers }, text] = await withDeadline(response, missing);
    return toAnswer(status, headers, text);
  }

  /** Sends a request; settles with the response head and the stream. Rejects when there is no response. */
  async send(method: string, path: string, options: RequestParts = {}) {
    const stream = this.request(method, path, options);
    return { ...(await readHead(stream)), stream };
  }

  /** Sends a request whose response the caller reads. */
  request(method: string, path: string, options: RequestParts = {}): ClientHttp2Stream {
    const headers = toHeaders(options);
    const head = { ':method': method, ':path': path, ...headers };
    const body = toBody(options);
    const stream = this.session.request(head, { endStream: body === undefined });
    observeH2(this.#port, { method, path, headers, body }, stream);
    if (body !== undefined) sendBody(stream, body);
    return stream;
  }

  async login(username: Username): Promise<Login> {
    const json = { username, password: getPassword(username) };
    const { status, body, text } = await this.ask('POST', '/login', { json });
    if (status !== 200) throw new Error(`login failed: ${text}`);
    return body as unknown as Login;
  }

  /** Returns the user's access token; logs in once per user and connection. */
  async accessToken(username: Username): Promise<string> {
    const login = this.#logins.get(username) ?? this.login(username);
    this.#logins.set(username, login);
    return (await login).accessToken;
  }

  /** Requests a stream token; returns the path of its stream, which is not open yet. */
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

  /** Opens a stream with an access token; settles after its `stream.open`. */
  async listenAs(bearer: string, headers: OutgoingHttpHeaders = {}): Promise<H2Stream> {
    const authorization = `Bearer ${bearer}`;
    const stream = await this.openStream('/stream/live', { authorization, ...headers });
    await stream.opening();
    return stream;
  }

  /** Opens a stream as a user; settles after its `stream.open`. */
  async listen(username: Username, headers: OutgoingHttpHeaders = {}): Promise<H2Stream> {
    const stream = await this.openStream(await this.streamPath(username), headers);
    await stream.opening();
    return stream;
  }
}

interface ResponseHead {
  readonly status: number;
  readonly headers: Record<string, string>;
}

/** Settles with the response head. Rejects when the stream ends first, and after a minute. */
export function readHead(stream: ClientHttp2Stream): Promise<ResponseHead> {
  const head = new Promise<ResponseHead>((resolve, reject) => {
    stream.on('error', reject);
    stream.once('close', () => reject(new Error('the stream ended without a response')));
    stream.once('response', (responseHeaders) => {
      const { ':status': status = 0, ...rest } = responseHeaders;
      resolve({ status, headers: rest as Record<string, string> });
    });
  });
  const { ':method': method, ':path': path } = stream.sentHeaders ?? {};
  return withDeadline(head, `a response head to ${method} ${path}`);
}

function readText(stream: ClientHttp2Stream): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.once('end', () => {
      // Node emits 'end' for a cancelled stream, too.
      if (stream.rstCode === constants.NGHTTP2_NO_ERROR) resolve(Buffer.concat(chunks).toString());
      else reject(new Error(`the stream was reset with ${stream.rstCode}`));
    });
    stream.once('error', reject);
    stream.once('close', () => reject(new Error('the stream ended within its response')));
  });
}
