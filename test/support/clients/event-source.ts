import { Agent, request } from 'node:https';
import { EventSource, type FetchLike, type FetchLikeResponse } from 'eventsource';
import { ca } from '../servers/certificate.js';
import type { Protocol } from './exchange.js';
import { H2Client, headOf } from './h2-client.js';
import { Listener } from './listener.js';

/** `fetch`, as far as the package `eventsource` needs it, over a connection that a test can cut. */
export class Fetcher {
  readonly #protocol: Protocol;
  #cutters = new Set<() => void>();
  /** The `last-event-id` of every request made, in order. */
  readonly lastEventIds: (string | undefined)[] = [];
  readonly statuses: number[] = [];
  isDown = false;

  constructor(protocol: Protocol) {
    this.#protocol = protocol;
  }

  /** The network is gone: every open connection breaks. */
  cut(): void {
    for (const cut of this.#cutters) cut();
  }

  readonly fetch: FetchLike = async (url, { headers, signal }) => {
    if (this.isDown) throw new TypeError('the network is down');
    this.lastEventIds.push(headers['Last-Event-ID']);
    const ask = this.#protocol === 'h2' ? askOverH2 : askOverH1;
    const asked = ask(new URL(url), headers, () => this.#cutters.delete(asked.cut));
    this.#cutters.add(asked.cut);
    signal?.addEventListener('abort', asked.cut);
    const { status, contentType, body } = await asked.answer;
    this.statuses.push(status);
    return answerOf(String(url), status, contentType, body);
  };
}

interface Head {
  readonly status: number;
  readonly contentType: string;
  readonly body: ReadableStream<Uint8Array>;
}

interface Asking {
  readonly answer: Promise<Head>;
  readonly cut: () => void;
}

/** Reads from the beginning: what came in one piece with its end is thrown away otherwise. */
function askOverH2(url: URL, headers: Record<string, string>, onEnd: () => void): Asking {
  const client = H2Client.open(url.origin);
  const stream = client.request('GET', url.pathname + url.search, { headers });
  stream.once('close', () => client.session.close());
  const body = bodyOf(stream, onEnd);
  const answer = headOf(stream).then(({ status, headers: given }) => {
    return { status, contentType: given['content-type'] ?? '', body };
  });
  return { answer, cut: () => client.destroy() };
}

function askOverH1(url: URL, headers: Record<string, string>, onEnd: () => void): Asking {
  const asked = request(url, { headers, ca, agent: new Agent() });
  const answer = new Promise<Head>((resolve, reject) => {
    asked.once('response', (response) => {
      const { statusCode: status = 0, headers: given } = response;
      const body = bodyOf(response, onEnd);
      resolve({ status, contentType: given['content-type'] ?? '', body });
    });
    asked.on('error', reject);
    asked.end();
  });
  return { answer, cut: () => void asked.destroy() };
}

function answerOf(
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

function bodyOf(input: NodeJS.ReadableStream, onEnd: () => void): ReadableStream<Uint8Array> {
  let isOver = false;
  return new ReadableStream<Uint8Array>({
    start(controller) {
      const over = (finish: () => void) => () => {
        if (isOver) return;
        isOver = true;
        onEnd();
        finish();
      };
      input.on('data', (bytes: Buffer) => isOver || controller.enqueue(bytes));
      input.on(
        'end',
        over(() => controller.close()),
      );
      const broken = over(() => controller.error(new TypeError('the network is gone')));
      input.on('error', broken);
      input.on('close', broken);
    },
  });
}

/** A page's `EventSource`, as the package `eventsource` writes it, and all that it was told. */
export class Page extends Listener {
  readonly source: EventSource;
  readonly network: Fetcher;
  /** How often it has been open. */
  opened = 0;

  constructor(
    url: string,
    { types = [], protocol = 'h2' }: { types?: readonly string[]; protocol?: Protocol } = {},
  ) {
    super();
    this.network = new Fetcher(protocol);
    this.source = new EventSource(url, { fetch: this.network.fetch });
    this.source.addEventListener('open', () => {
      this.opened += 1;
      this.feed(new Uint8Array());
    });
    for (const type of ['message', 'stream.open', 'stream.close', ...types]) {
      this.source.addEventListener(type, ({ lastEventId, data }) => {
        this.heard.push({ type, id: lastEventId === '' ? undefined : lastEventId, data });
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

  /** What it was told at the beginning of each stream, in order. */
  get openings(): { resumed: boolean; reason: string; id: string }[] {
    return this.dataOf('stream.open').map((data) => JSON.parse(data));
  }

  /** Settles once so many streams have begun; answers how the last of them began. */
  began(count: number) {
    return this.until(() => (this.openings.length >= count ? this.openings[count - 1] : undefined));
  }
}
