import { connect, type TLSSocket } from 'node:tls';
import { H2Client } from './h2-client.js';
import { Latencies, type LatencySummary } from './latencies.js';
import { nowMicros, Tally } from './marked-events.js';

export interface StreamLoadPlan {
  readonly port: number;
  readonly protocol: 'h2' | 'http/1.1';
  /** The request of each stream. */
  readonly streams: readonly StreamRequest[];
  readonly streamsPerConnection: number;
  /** Connections opened concurrently. */
  readonly atOnce: number;
}

export interface StreamRequest {
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
}

export interface StreamLoadCount {
  readonly streams: number;
  /** Marked events received by all streams. */
  readonly events: number;
  /** Streams whose number or sum of events is not the expected one. */
  readonly wrong: number;
  readonly disorder: number;
  /** Connections that the server closed. */
  readonly lost: number;
  /** From publish to receipt, ms. */
  readonly latency: LatencySummary;
  /** The longest time that any stream received nothing since the reset, ms. */
  readonly longestSilenceMs: number;
}

interface Connection {
  close(): void;
}

const receivedMsMax = 120_000;

/** Opens many event streams and counts what each has received. */
export class StreamLoad {
  readonly #latencies = new Latencies();
  readonly #tallies: Tally[] = [];
  readonly #connections = new Set<Connection>();
  #events = 0;
  #lost = 0;
  #closing = false;
  #waiting: { events: number; resolve: () => void; timer: NodeJS.Timeout } | undefined;

  /** Opens all streams. Resolves when each has received its first bytes. */
  async open(plan: StreamLoadPlan): Promise<void> {
    const { streams, streamsPerConnection, atOnce } = plan;
    const groups: StreamRequest[][] = [];
    for (let start = 0; start < streams.length; start += streamsPerConnection) {
      groups.push(streams.slice(start, start + streamsPerConnection));
    }
    const next = groups.values();
    const openNext = async () => {
      for (const group of next) await this.#openConnection(plan, group);
    };
    await Promise.all(Array.from({ length: atOnce }, openNext));
  }

  /**
   * Resolves when all streams together have received `events` events since the last reset. Rejects
   * after two minutes.
   */
  received(events: number): Promise<void> {
    if (this.#events >= events) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const late = () =>
        reject(new Error(`Cannot wait longer: ${this.#events} of ${events} events have arrived`));
      this.#waiting = { events, resolve, timer: setTimeout(late, receivedMsMax) };
    });
  }

  /** Compares what has arrived with `each` events per stream, whose numbers add up to `sum`. */
  count({ each, sum }: { each: number; sum: number }): StreamLoadCount {
    const tallies = this.#tallies;
    return {
      streams: tallies.length,
      events: this.#events,
      wrong: tallies.filter((tally) => tally.events !== each || tally.sum !== sum).length,
      disorder: tallies.reduce((all, tally) => all + tally.disorder, 0),
      lost: this.#lost,
      latency: this.#latencies.summary,
      longestSilenceMs: Math.max(0, ...tallies.map((tally) => tally.silenceMicros)) / 1000,
    };
  }

  reset(): void {
    for (const tally of this.#tallies) tally.reset();
    this.#latencies.reset();
    this.#events = 0;
  }

  close(): void {
    this.#closing = true;
    for (const connection of this.#connections) connection.close();
    this.#connections.clear();
    this.#tallies.length = 0;
    this.reset();
    this.#lost = 0;
    this.#closing = false;
  }

  #openConnection(plan: StreamLoadPlan, group: readonly StreamRequest[]): Promise<void> {
    return plan.protocol === 'h2' ? this.#openH2(plan, group) : this.#openH1(plan, group);
  }

  async #openH2({ port }: StreamLoadPlan, group: readonly StreamRequest[]): Promise<void> {
    const tallies = new Map<number, Tally>();
    const waiting = new Set<number>();
    let allStarted: () => void = () => {};
    let broke: (cause: Error) => void = () => {};
    const started = new Promise<void>((resolve, reject) => {
      allStarted = resolve;
      broke = reject;
    });
    const client = await H2Client.open(port, {
      onData: (streamId, buffer, start, end) => {
        const tally = tallies.get(streamId);
        if (tally !== undefined) this.#feed(tally, buffer, start, end);
        if (waiting.size > 0 && waiting.delete(streamId) && waiting.size === 0) allStarted();
      },
      onEnd: () => this.#countLost(),
      onClose: (cause) => {
        this.#forget(client);
        broke(new Error('Cannot open streams: the server closed the connection', { cause }));
      },
    });
    this.#connections.add(client);
    for (const { path, headers } of group) {
      const streamId = client.request({ method: 'GET', path, headers });
      waiting.add(streamId);
      tallies.set(streamId, this.#newTally());
    }
    await started;
  }

  #openH1({ port }: StreamLoadPlan, [first]: readonly StreamRequest[]): Promise<void> {
    if (first === undefined) return Promise.resolve();
    const tally = this.#newTally();
    return new Promise((resolve, reject) => {
      const socket: TLSSocket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false });
      this.#connections.add({ close: () => socket.destroy() });
      socket.once('error', reject);
      socket.once('close', () => this.#countLost());
      socket.once('secureConnect', () => {
        const fields = Object.entries({ host: 'localhost', ...first.headers });
        const lines = fields.map(([name, value]) => `${name}: ${value}\r\n`).join('');
        socket.write(`GET ${first.path} HTTP/1.1\r\n${lines}\r\n`);
      });
      socket.on('data', (bytes: Buffer) => {
        resolve();
        this.#feed(tally, bytes, 0, bytes.length); // Chunk sizes hold no mark.
      });
    });
  }

  #newTally(): Tally {
    const tally = new Tally();
    this.#tallies.push(tally);
    return tally;
  }

  #feed(tally: Tally, buffer: Buffer, start: number, end: number): void {
    const now = nowMicros();
    const before = tally.events;
    tally.noteRead(now);
    tally.feed(buffer, start, end, (publishedAt) => this.#latencies.add(now - publishedAt));
    this.#events += tally.events - before;
    const waiting = this.#waiting;
    if (waiting === undefined || this.#events < waiting.events) return;
    this.#waiting = undefined;
    clearTimeout(waiting.timer);
    waiting.resolve();
  }

  #forget(connection: Connection): void {
    if (this.#connections.delete(connection)) this.#countLost();
  }

  #countLost(): void {
    if (!this.#closing) this.#lost += 1;
  }
}
