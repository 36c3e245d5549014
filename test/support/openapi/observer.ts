import type { ClientRequest, IncomingMessage, OutgoingHttpHeaders } from 'node:http';
import type { ClientHttp2Stream } from 'node:http2';
import { Readable } from 'node:stream';
import { after, afterEach } from 'node:test';
import { Contract, type ReceivedResponse } from './contract.js';
import { readDocument } from './document.js';
import type { SentRequest } from './request-check.js';

/** Maximum size of a body that is checked. */
const bodyBytesMax = 8 * 1024 * 1024;

/** Ports of the servers whose requests and responses are checked. */
const ports = new Set<number>();
const violations = new Set<string>();
let contract: Contract | undefined;

afterEach(failOnViolations);
after(failOnViolations);

/**
 * Starts to compare the requests to a server on this port, and their responses, with docs/openapi.yaml. A
 * violation fails the test. Returns a function that stops the comparison; call it when the server has closed.
 */
export function startOpenApiCheck(port: number): () => void {
  ports.add(port);
  return () => ports.delete(port);
}

/** Throws an error that lists the violations since the last call. Does nothing if there are none. */
export function failOnViolations(): void {
  if (violations.size === 0) return;
  const list = [...violations].map((violation) => `\n  ${violation}`).join('');
  violations.clear();
  throw new Error(`Not as in docs/openapi.yaml (see "A new route" in CONTRIBUTING.md):${list}`);
}

/** A request before its body is sent. */
export interface StartedRequest {
  readonly method: string;
  /** Path and query. */
  readonly path: string;
  readonly headers: OutgoingHttpHeaders;
  readonly body: string | Buffer | Readable | undefined;
}

/** Observes the response to a request over HTTP/2. Call it in the tick in which the request is created. */
export function observeH2(port: number, started: StartedRequest, stream: ClientHttp2Stream): void {
  if (!ports.has(port)) return;
  const exchange = new ObservedExchange(started);
  exchange.tap(stream);
  stream.once('response', ({ ':status': status = 0, ...headers }) =>
    exchange.receiveHead(status, headers),
  );
}

/** Observes the response to a request over HTTP/1.1. Call it in the tick in which the request is created. */
export function observeH1(port: number, started: StartedRequest, request: ClientRequest): void {
  if (!ports.has(port)) return;
  const exchange = new ObservedExchange(started);
  request.once('response', (response: IncomingMessage) => {
    exchange.tap(response);
    exchange.receiveHead(response.statusCode ?? 0, response.headers);
  });
}

/** Checks the data of one of Herald's own events; does nothing for an event of a publisher. */
export function observeEvent(type: string, data: string): void {
  if (!type.startsWith('stream.') && type !== 'count') return;
  report(getContract().checkEvent(type, data));
}

/** A request and its response. Compares them with docs/openapi.yaml when the head or the body arrives. */
class ObservedExchange {
  readonly #started: StartedRequest;
  readonly #sent: Body;
  readonly #received = new Body();
  #head: Omit<ReceivedResponse, 'body'> | undefined;
  /** Violations that were reported when the head arrived, so that the end of the body does not report them again. */
  readonly #reported = new Set<string>();

  constructor(started: StartedRequest) {
    this.#started = started;
    this.#sent = Body.of(started.body);
  }

  /**
   * Copies the data that a stream receives. Wraps `push`, to which Node passes all received data, because reading
   * from the stream would take the data from the test.
   */
  tap(stream: Readable): void {
    const push = stream.push.bind(stream);
    stream.push = (chunk: Buffer | null, ...rest) => {
      if (chunk === null) this.#received.end();
      else this.#received.append(chunk);
      if (chunk === null) this.#check();
      return push(chunk, ...rest);
    };
  }

  receiveHead(status: number, headers: ReceivedResponse['headers']): void {
    this.#head = { status, headers };
    const isStream = String(headers['content-type']).startsWith('text/event-stream');
    if (isStream) this.#received.discard(); // The body has no end, and `observeEvent` checks its events.
    this.#check();
  }

  /** Checks the exchange when its head arrives, and again when its body ends, before the test sees the end. */
  #check(): void {
    if (this.#head === undefined) return;
    const { method, path: url, headers: sentHeaders } = this.#started;
    const headers = Object.fromEntries(
      Object.entries(sentHeaders).map(([name, value]) => [name.toLowerCase(), value]),
    );
    const request: SentRequest = { method, url, headers, body: this.#sent.text };
    // Node ends the stream of an HTTP/2 response that was reset as if the body were complete.
    const { 'content-length': length = this.#received.length } = this.#head.headers;
    const body = this.#received.length === Number(length) ? this.#received.text : undefined;
    const problems = getContract().check(request, { ...this.#head, body });
    report(problems.filter((problem) => !this.#reported.has(problem)));
    for (const problem of problems) this.#reported.add(problem);
  }
}

/** A body that is being sent or received. */
class Body {
  #chunks: Buffer[] = [];
  #length = 0;
  #isComplete = false;

  /** Creates the body of a request. */
  static of(source: StartedRequest['body']): Body {
    const body = new Body();
    if (source instanceof Readable) {
      source.on('data', (chunk) => body.append(Buffer.from(chunk)));
      source.once('end', () => body.end());
    } else {
      if (source !== undefined) body.append(Buffer.from(source));
      body.end();
    }
    return body;
  }

  /** The text of a complete body. Undefined before the end of the body, and after `discard`. */
  get text(): string | undefined {
    return this.#isComplete ? Buffer.concat(this.#chunks).toString() : undefined;
  }

  get length(): number {
    return this.#length;
  }

  append(chunk: Buffer): void {
    this.#length += chunk.length;
    if (this.#length > bodyBytesMax) this.discard();
    else this.#chunks.push(chunk);
  }

  end(): void {
    this.#isComplete = this.#length <= bodyBytesMax;
  }

  /** Drops the data received so far, and all further data. */
  discard(): void {
    this.#length = Number.POSITIVE_INFINITY;
    this.#chunks = [];
    this.#isComplete = false;
  }
}

function report(problems: readonly string[]): void {
  for (const problem of problems) violations.add(problem);
}

function getContract(): Contract {
  contract ??= new Contract(readDocument());
  return contract;
}
