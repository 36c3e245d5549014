import { EventLog } from '../../src/event-log/event-log.js';
import { getAudiences } from '../../src/events/audience.js';
import { silentLogger } from '../../src/logging/logger.js';
import { EventStream, type StreamClient } from '../../src/stream/event-stream.js';
import { Registry } from '../../src/stream/registry.js';
import { WriteScheduler } from '../../src/stream/write-scheduler.js';
import { SimulatedClient } from './clients/simulated-client.js';
import { MemoryLogStore } from './databases/memory-log-store.js';
import { resolveStart } from './resolve-start.js';
import { unlimitedRetention } from './unlimited-retention.js';

/** The properties of a stream that a list of streams shows. */
export interface StreamTraits {
  readonly user?: string;
  readonly session?: string;
  /** Default: the id of the stream. */
  readonly publicId?: string;
  readonly client?: StreamClient;
  readonly openedAt?: number;
}

/** A stream and its simulated client, which accepts no bytes until `acceptBytes` is called. */
export interface OpenedStream {
  readonly stream: EventStream;
  readonly client: SimulatedClient;
}

/** The streams of one process, whose event log is in memory. */
export class StreamProcess {
  readonly registry: Registry;
  readonly #store: MemoryLogStore;
  readonly #eventLog: EventLog;
  readonly #scheduler = new WriteScheduler(() => 0);
  /** Gives streams of different processes different ids. */
  readonly #name: string;
  #openedCount = 0;

  private constructor(name: string, perUserMax: number, store: MemoryLogStore, log: EventLog) {
    this.#name = name;
    this.#store = store;
    this.#eventLog = log;
    const limits = { streamsMax: 1e9, perUserMax, perIpMax: 1e9 };
    this.registry = new Registry({ limits, monotonicClock: () => 0, random: () => 0.5 });
    log.subscribe(this.registry);
  }

  /** Opens a process without streams. `name` is one hex digit. */
  static async open(name = 'a', { perUserMax = 1e9 } = {}): Promise<StreamProcess> {
    const store = new MemoryLogStore('e');
    store.release();
    const eventLog = await EventLog.open({
      ...{ store, log: silentLogger, wallClock: () => 0, limits: unlimitedRetention },
    });
    return new StreamProcess(name, perUserMax, store, eventLog);
  }

  /** The ids of the open streams, in order. */
  get ids(): string[] {
    return [...this.registry.streams].map(({ id }) => id).sort();
  }

  async openStream(traits: StreamTraits = {}): Promise<OpenedStream> {
    this.#openedCount += 1;
    const id = this.#name + this.#openedCount.toString(16).padStart(31, '0');
    const { user: userId = '1', session: sessionId = 's', publicId = id } = traits;
    const audiences = getAudiences(userId, sessionId);
    const client = new SimulatedClient(userId);
    const stream = new EventStream({
      ...{ id, publicId, client: traits.client ?? { address: '192.0.2.1', userAgent: undefined } },
      subscriber: { userId, sessionId, audiences, ipKey: 'ip', tokenHash: undefined },
      openedAt: traits.openedAt ?? 1_000_000,
      start: await resolveStart(this.#eventLog, audiences),
      headAtOpen: this.#eventLog.head,
      claim: undefined,
      endsAt: 1e12,
      hasHeartbeatEvents: false,
      sink: client.connect(),
      eventLog: this.#eventLog,
      scheduler: this.#scheduler,
      limits: {
        ...{ heartbeatMs: 1e9, stallMs: 1e9, retryMs: 2000 },
        ...{ unsentSoftBytes: 500, unsentHardBytes: 1e9 },
      },
      monotonicClock: () => 0,
      random: () => 0.5,
      onEnd: (ended) => this.registry.remove(ended),
    });
    this.registry.add(stream, this.registry.pendingOpens.add());
    stream.open();
    return { stream, client };
  }

  async openStreams(count: number, traits: StreamTraits = {}): Promise<void> {
    for (let opened = 0; opened < count; opened += 1) await this.openStream(traits);
  }

  /** Publishes an event to everybody, and delivers it. */
  async publish(data: string): Promise<void> {
    this.#store.appendExternally(['all'], data);
    await this.#eventLog.catchUp();
  }
}
