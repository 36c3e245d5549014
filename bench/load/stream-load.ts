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
  /** Maximum number of connections that are being opened at the same time. */
  readonly openingMax: number;
}

export interface StreamRequest {
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
}

export interface StreamLoadCount {
  readonly streamCount: number;
  /** Benchmark events that all streams together have received. */
  readonly eventCount: number;
  /** Streams that received an unexpected number of events, or events whose numbers have an unexpected sum. */
  readonly wrongStreamCount: number;
  /** Events whose number was not greater than that of the previous event of their stream. */
  readonly outOfOrderCount: number;
  /** Connections that the server closed, plus streams that the server ended on open connections. */
  readonly lostCount: number;
  /** Time from just before an event is published until the load generator reads it. */
  readonly latency: LatencySummary;
  /** The longest time between two reads of a stream since the reset. */
  readonly longestGapMs: number;
}

interface Connection {
  close(): void;
}

const waitMsMax = 120_000;

/**
 * Opens many event streams and counts the benchmark events that each has received. The payload of a benchmark
 * event starts with `~`, see `createMarkedData`.
 */
export class StreamLoad {
  readonly #latencies = new Latencies();
  readonly #tallies: Tally[] = [];
  readonly #connections = new Set<Connection>();
  #eventCount = 0;
  #lostCount = 0;
  #isClosing = false;
  #waiter: { eventCount: number; resolve: () => void; timer: NodeJS.Timeout } | undefined;

  /** Opens all streams. Resolves when each has received its first bytes. */
  async open(plan: StreamLoadPlan): Promise<void> {
    const { streams, streamsPerConnection, openingMax } = plan;
    const groups: StreamRequest[][] = [];
    for (let start = 0; start < streams.length; start += streamsPerConnection) {
      groups.push(streams.slice(start, start + streamsPerConnection));
    }
    const remainingGroups = groups.values();
    const openNext = async () => {
      for (const group of remainingGroups) await this.#openConnection(plan, group);
    };
    await Promise.all(Array.from({ length: openingMax }, openNext));
  }

  /**
   * Resolves when all streams together have received `eventCount` events since the last reset. Rejects
   * after two minutes.
   */
  waitForEvents(eventCount: number): Promise<void> {
    if (this.#eventCount >= eventCount) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const rejectLate = () =>
        reject(
          new Error(`Cannot wait longer: ${this.#eventCount} of ${eventCount} events have arrived`),
        );
      this.#waiter = { eventCount, resolve, timer: setTimeout(rejectLate, waitMsMax) };
    });
  }

  /**
   * Counts the received events, and the streams that did not receive exactly `eventsPerStream` events
   * with numbers that add up to `sum`.
   */
  count({ eventsPerStream, sum }: { eventsPerStream: number; sum: number }): StreamLoadCount {
    const tallies = this.#tallies;
    return {
      streamCount: tallies.length,
      eventCount: this.#eventCount,
      wrongStreamCount: tallies.filter(
        (tally) => tally.events !== eventsPerStream || tally.sum !== sum,
      ).length,
      outOfOrderCount: tallies.reduce((total, tally) => total + tally.outOfOrder, 0),
      lostCount: this.#lostCount,
      latency: this.#latencies.summary,
      longestGapMs: Math.max(0, ...tallies.map((tally) => tally.longestGapMicros)) / 1000,
    };
  }

  reset(): void {
    for (const tally of this.#tallies) tally.reset();
    this.#latencies.reset();
    this.#eventCount = 0;
  }

  close(): void {
    this.#isClosing = true;
    for (const connection of this.#connections) connection.close();
    this.#connections.clear();
    this.#tallies.length = 0;
    this.reset();
    this.#lostCount = 0;
    this.#isClosing = false;
  }

  #openConnection(plan: StreamLoadPlan, group: readonly StreamRequest[]): Promise<void> {
    return plan.protocol === 'h2' ? this.#openH2(plan, group) : this.#openH1(plan, group);
  }

  async #openH2({ port }: StreamLoadPlan, group: readonly StreamRequest[]): Promise<void> {
    const tallies = new Map<number, Tally>();
    const unstarted = new Set<number>();
    let resolveStart: () => void = () => {};
    let rejectStart: (cause: Error) => void = () => {};
    const started = new Promise<void>((resolve, reject) => {
      resolveStart = resolve;
      rejectStart = reject;
    });
    const client = await H2Client.open(port, {
      onData: (streamId, buffer, start, end) => {
        const tally = tallies.get(streamId);
        if (tally !== undefined) this.#feed(tally, buffer, start, end);
        if (unstarted.size > 0 && unstarted.delete(streamId) && unstarted.size === 0)
          resolveStart();
      },
      onEnd: () => this.#countLost(),
      onClose: (cause) => {
        this.#handleConnectionClose(client);
        rejectStart(new Error('Cannot open streams: the server closed the connection', { cause }));
      },
    });
    this.#connections.add(client);
    for (const { path, headers } of group) {
      const streamId = client.request({ method: 'GET', path, headers });
      unstarted.add(streamId);
      tallies.set(streamId, this.#newTally());
    }
    await started;
  }

  /** Opens the only stream of a connection: with HTTP/1.1, `streamsPerConnection` must be 1. */
  #openH1({ port }: StreamLoadPlan, [request]: readonly StreamRequest[]): Promise<void> {
    if (request === undefined) return Promise.resolve();
    const tally = this.#newTally();
    return new Promise((resolve, reject) => {
      const socket: TLSSocket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false });
      this.#connections.add({ close: () => socket.destroy() });
      socket.once('error', reject);
      socket.once('close', () => this.#countLost());
      socket.once('secureConnect', () => {
        const fields = Object.entries({ host: 'localhost', ...request.headers });
        const lines = fields.map(([name, value]) => `${name}: ${value}\r\n`).join('');
        socket.write(`GET ${request.path} HTTP/1.1\r\n${lines}\r\n`);
      });
      socket.on('data', (bytes: Buffer) => {
        resolve();
        // Not decoded: the framing of chunked encoding contains no `~`, the start of a benchmark event.
        this.#feed(tally, bytes, 0, bytes.length);
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
    const eventsBefore = tally.events;
    tally.recordRead(now);
    tally.feed(buffer, start, end, (publishedAt) => this.#latencies.add(now - publishedAt));
    this.#eventCount += tally.events - eventsBefore;
    const waiter = this.#waiter;
    if (waiter === undefined || this.#eventCount < waiter.eventCount) return;
    this.#waiter = undefined;
    clearTimeout(waiter.timer);
    waiter.resolve();
  }

  #handleConnectionClose(connection: Connection): void {
    if (this.#connections.delete(connection)) this.#countLost();
  }

  #countLost(): void {
    if (!this.#isClosing) this.#lostCount += 1;
  }
}
