import { request as requestPlain } from 'node:http';
import { request as requestSecure } from 'node:https';
import { EventSource, type FetchLike, type FetchLikeResponse } from 'eventsource';
import { observeH1 } from '../openapi/observer.js';
import { ca } from '../servers/certificate.js';
import { EventCollector, type Opening, parseOpening } from './event-collector.js';
import type { Protocol } from './exchange.js';
import { H2Client, readHead } from './h2-client.js';

/** Provides a `fetch` for the package `eventsource`, over connections that a test can break. */
export class TestNetwork {
  readonly #protocol: Protocol;
  #cutters = new Set<() => void>();
  /** The `last-event-id` of each request, in order. */
  readonly lastEventIds: (string | undefined)[] = [];
  readonly statuses: number[] = [];
  isDown = false;

  constructor(protocol: Protocol) {
    this.#protocol = protocol;
  }

  /** Breaks every open connection. */
  disconnect(): void {
    for (const cut of this.#cutters) cut();
  }

  readonly fetch: FetchLike = async (url, { headers, signal }) => {
    if (this.isDown) throw new TypeError('the network is down');
    this.lastEventIds.push(new Headers(headers).get('last-event-id') ?? undefined);
    const ask = this.#protocol === 'h2' ? fetchOverH2 : fetchOverHttp1;
    const pending = ask(new URL(url), headers, () => this.#cutters.delete(pending.cut));
    this.#cutters.add(pending.cut);
    signal?.addEventListener('abort', pending.cut);
    const { status, contentType, body } = await pending.answer;
    this.statuses.push(status);
    return toFetchResponse(String(url), status, contentType, body);
  };
}

interface ResponseHead {
  readonly status: number;
  readonly contentType: string;
  readonly body: ReadableStream<Uint8Array>;
}

interface PendingFetch {
  readonly answer: Promise<ResponseHead>;
  readonly cut: () => void;
}

/** Attaches the reader of the body at once, because Node discards a body whose end arrives before a reader. */
function fetchOverH2(url: URL, headers: Record<string, string>, onEnd: () => void): PendingFetch {
  const client = H2Client.open(url.origin);
  const stream = client.request('GET', url.pathname + url.search, { headers });
  stream.once('close', () => client.session.close());
  const body = toBodyStream(stream, onEnd);
  const answer = readHead(stream).then(({ status, headers: responseHeaders }) => {
    return { status, contentType: responseHeaders['content-type'] ?? '', body };
  });
  return { answer, cut: () => client.destroy() };
}

function fetchOverHttp1(
  url: URL,
  headers: Record<string, string>,
  onEnd: () => void,
): PendingFetch {
  const request = url.protocol === 'https:' ? requestSecure : requestPlain;
  const outgoing = request(url, { headers, ca, agent: false });
  const path = url.pathname + url.search;
  observeH1(Number(url.port), { method: 'GET', path, headers, body: undefined }, outgoing);
  const answer = new Promise<ResponseHead>((resolve, reject) => {
    outgoing.once('response', (response) => {
      const { statusCode: status = 0, headers: responseHeaders } = response;
      const body = toBodyStream(response, onEnd);
      resolve({ status, contentType: responseHeaders['content-type'] ?? '', body });
    });
    outgoing.on('error', reject);
    outgoing.end();
  });
  return { answer, cut: () => void outgoing.destroy() };
}

function toFetchResponse(
  url: string,
  status: number,
  contentType: string,
  body: ReadableStream<Uint8Array>,
): FetchLikeResponse {
  return {
    ...{ url, status, body, redirected: false },
    headers: { get: (name) => (name.toLowerCase() === 'content-type' ? contentType : null) },
  };
}

function toBodyStream(input: NodeJS.ReadableStream, onEnd: () => void): ReadableStream<Uint8Array> {
  let isFinished = false;
  return new ReadableStream<Uint8Array>({
    start(controller) {
      const onceOnly = (finish: () => void) => () => {
        if (isFinished) return;
        isFinished = true;
        onEnd();
        finish();
      };
      input.on('data', (bytes: Buffer) => isFinished || controller.enqueue(bytes));
      input.on(
        'end',
        onceOnly(() => controller.close()),
      );
      const broken = onceOnly(() => controller.error(new TypeError('the connection broke')));
      input.on('error', broken);
      input.on('close', broken);
    },
  });
}

/** An `EventSource` of the package `eventsource`, and all events that it received. */
export class EventSourceClient extends EventCollector {
  readonly source: EventSource;
  readonly network: TestNetwork;

  constructor(
    url: string,
    { types = [], protocol = 'h2' }: { types?: readonly string[]; protocol?: Protocol } = {},
  ) {
    super();
    this.network = new TestNetwork(protocol);
    this.source = new EventSource(url, { fetch: this.network.fetch });
    // Checks pending waits, whose conditions may depend on `network`.
    this.source.addEventListener('open', () => this.feed(new Uint8Array()));
    for (const type of ['message', 'stream.open', 'stream.close', ...types]) {
      this.source.addEventListener(type, ({ lastEventId, data }) => {
        this.events.push({ type, id: lastEventId === '' ? undefined : lastEventId, data });
        this.feed(new Uint8Array());
      });
    }
    this.source.addEventListener('error', () => {
      if (this.source.readyState === EventSource.CLOSED) this.end();
    });
  }

  get isClosed(): boolean {
    return this.source.readyState === EventSource.CLOSED;
  }

  /** Data of each `stream.open`, in order. */
  get openings(): Opening[] {
    return this.dataByType('stream.open').map(parseOpening);
  }

  /** Settles with the data of the `count`th `stream.open`, counted from 1. */
  waitForOpenings(count: number) {
    return this.until(() => (this.openings.length >= count ? this.openings[count - 1] : undefined));
  }
}
