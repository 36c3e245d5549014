import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from 'node:http2';
import { createParser } from 'eventsource-parser';
import { recordSecretsIn } from '../recording/record.js';

export interface H2Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Record<string, unknown>;
}

export interface H2Question {
  readonly bearer?: string;
  readonly json?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

/** One HTTP/2 connection to a Herald. Close it. */
export class H2Client {
  readonly #session: ClientHttp2Session;

  constructor(port: number, ca: string) {
    this.#session = connect(`https://127.0.0.1:${port}`, { ca });
    this.#session.on('error', () => {}); // Shows in the requests.
  }

  async ask(method: string, path: string, question: H2Question = {}): Promise<H2Answer> {
    const { bearer, json, headers = {} } = question;
    const stream = this.#session.request({
      ':method': method,
      ':path': path,
      ...(bearer === undefined ? {} : { authorization: `Bearer ${bearer}` }),
      ...(json === undefined ? {} : { 'content-type': 'application/json' }),
      ...headers,
    });
    stream.end(json === undefined ? undefined : JSON.stringify(json));
    // Read from the beginning: what comes in one piece with the end is thrown away by Node otherwise.
    const [head, text] = await Promise.all([headOf(stream), textOf(stream)]);
    const body = text === '' ? {} : JSON.parse(text);
    recordSecretsIn(json);
    recordSecretsIn(body);
    return { ...head, body };
  }

  /** The access token of a login that must work. */
  async login(username: string, password: string): Promise<string> {
    const { status, body } = await this.ask('POST', '/login', { json: { username, password } });
    if (status !== 200) throw new Error(`login was answered ${status} ${JSON.stringify(body)}`);
    return String(body['accessToken']);
  }

  async openStream(path: string, question: H2Question = {}): Promise<H2Stream> {
    const { bearer, headers = {} } = question;
    const stream = this.#session.request({
      ':path': path,
      accept: 'text/event-stream',
      ...(bearer === undefined ? {} : { authorization: `Bearer ${bearer}` }),
      ...headers,
    });
    stream.on('error', () => {}); // A cut is expected.
    const opened = new H2Stream(stream); // Listens from the beginning, as above.
    opened.status = (await headOf(stream)).status;
    return opened;
  }

  close(): void {
    this.#session.destroy();
  }
}

export interface StreamEvent {
  readonly id: string | undefined;
  readonly event: string | undefined;
  readonly data: string;
}

/** An open event stream and what has come in on it. */
export class H2Stream {
  status = 0;
  readonly events: StreamEvent[] = [];
  isClosed = false;
  readonly #stream: ClientHttp2Stream;
  #onNews: (() => void)[] = [];

  constructor(stream: ClientHttp2Stream) {
    this.#stream = stream;
    const parser = createParser({
      onEvent: ({ id, event, data }) => this.events.push({ id, event, data }),
    });
    stream.setEncoding('utf8').on('data', (text: string) => {
      parser.feed(text);
      this.#tell();
    });
    stream.once('close', () => {
      this.isClosed = true;
      this.#tell();
    });
  }

  /** Settles when `isThere` holds for what has come in; rejects when the stream ends before. */
  async until(isThere: (events: readonly StreamEvent[]) => boolean): Promise<void> {
    while (!isThere(this.events)) {
      if (this.isClosed) throw new Error(`stream ended: ${JSON.stringify(this.events.slice(-3))}`);
      await new Promise<void>((resolve) => this.#onNews.push(resolve));
    }
  }

  async closed(): Promise<void> {
    while (!this.isClosed) await new Promise<void>((resolve) => this.#onNews.push(resolve));
  }

  /** Leaves, as a broken network does. */
  cut(): void {
    this.#stream.close(constants.NGHTTP2_CANCEL);
  }

  #tell(): void {
    for (const resolve of this.#onNews.splice(0)) resolve();
  }
}

function textOf(stream: ClientHttp2Stream): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    stream.setEncoding('utf8').on('data', (chunk) => {
      text += chunk;
    });
    stream.once('end', () => resolve(text));
    stream.once('error', reject);
    stream.once('close', () => reject(new Error('stream closed before its end')));
  });
}

function headOf(
  stream: ClientHttp2Stream,
): Promise<{ status: number; headers: Readonly<Record<string, string>> }> {
  return new Promise((resolve, reject) => {
    stream.once('error', reject);
    stream.once('close', () => reject(new Error('stream closed before its head')));
    stream.once('response', (given) => {
      stream.off('error', reject);
      const { ':status': status = 0, ...headers } = given;
      resolve({ status, headers: headers as Record<string, string> });
    });
  });
}
