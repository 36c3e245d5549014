import { Failure } from '../errors.js';
import { createEventFailure } from '../events/event-failure.js';
import { formatPosition } from '../events/event-id.js';
import type { Frame } from '../events/frame.js';
import type { NewEvent } from '../events/publish-request.js';
import type { Reader, TopicsBySeq } from '../events/topic.js';
import type { Logger } from '../logging/logger.js';
import { Semaphore } from '../util/semaphore.js';
import { SharedCall } from '../util/shared-call.js';
import { AppendQueue } from './append-queue.js';
import { type EventSubscriber, LogDelivery } from './log-delivery.js';
import { LogPoller } from './log-poller.js';
import type {
  AppendRequest,
  KeyRefusal,
  LoggableEvent,
  LogState,
  LogStore,
  Publisher,
} from './log-store.js';
import { encodeEvent, isExpired } from './logged-event.js';
import type { ReadRequest } from './recent-events.js';
import { ResumeResolver, type StartRequest, type StreamStart } from './resume-resolver.js';
import { type RetentionLimits, trimLog } from './retention.js';

export interface FramePage {
  readonly frames: readonly Frame[];
  /** Every event visible to the reader up to this `seq` is in `frames` or in an earlier page. */
  readonly endSeq: number;
  readonly hasMore: boolean;
  /**
   * Whether events for the reader were trimmed before the page was read. In rare cases true although no event
   * was lost, for example when the events of the page are trimmed right after the read.
   */
  readonly hasGap: boolean;
  /**
   * For the events that are visible only through topics: the topics of the reader that they have. Undefined if
   * there are no such events. By the time that the page arrives, the reader may no longer have these topics.
   */
  readonly topicsBySeq: TopicsBySeq | undefined;
}

export interface AppendResult {
  /** The ids of the events, in the order of the request. */
  readonly ids: readonly string[];
  /** Whether every event was appended earlier, under the idempotency key of the request or of the event. */
  readonly isRepeated: boolean;
  /** Number of the newest of the events; 0 without events. */
  readonly newestSeq: number;
}

export interface EventLogOptions {
  readonly store: LogStore;
  readonly log: Logger;
  readonly wallClock: () => number;
  readonly limits: RetentionLimits;
}

const nothingAppended: AppendResult = { ids: [], isRepeated: false, newestSeq: 0 };
const pageEventsMax = 256;
const pollMs = { busy: 25, idle: 250, notified: 1000 };
/** Polling intervals while only this process and commands append. */
const unsharedPollMs = { busy: 1000, idle: 1000, notified: 1000 };
/** Limits concurrent reads from the store, because publishes and logins use the same database. */
const concurrentReadsMax = 4;

/**
 * The event log: all events in one total order. `append` resolves once the events are durable. The
 * subscriber then receives every event, in order. `read` returns the events that are visible to a
 * reader, from any position that has not been trimmed.
 */
export class EventLog {
  readonly epoch: string;
  readonly #store: LogStore;
  readonly #log: Logger;
  readonly #wallClock: () => number;
  readonly #limits: RetentionLimits;
  readonly #queue: AppendQueue;
  readonly #resumeResolver: ResumeResolver;
  readonly #readSemaphore = new Semaphore(concurrentReadsMax);
  readonly #stateRead: SharedCall<LogState>;
  readonly #delivery: LogDelivery;
  #poller: LogPoller | undefined;

  private constructor({ store, log, wallClock, limits }: EventLogOptions, state: LogState) {
    this.#store = store;
    this.#log = log;
    this.#wallClock = wallClock;
    this.#limits = limits;
    this.epoch = state.epoch;
    this.#delivery = new LogDelivery({ store, log, wallClock }, state);
    this.#resumeResolver = new ResumeResolver(store);
    this.#stateRead = new SharedCall(() => this.#readConfirmedState());
    this.#queue = new AppendQueue({
      store,
      onAppended: (added) => this.#delivery.deliverAppended(added),
      onUncertainCommit: () => this.tryCatchUp(),
    });
  }

  static async open(options: EventLogOptions): Promise<EventLog> {
    return new EventLog(
      options,
      await confirmState(options.store, await options.store.readState()),
    );
  }

  /** Number of the newest entry that was delivered or applied. */
  get head(): number {
    return this.#delivery.head;
  }

  /** Number of events that are waiting to be written. */
  get waitingEvents(): number {
    return this.#queue.waitingEvents;
  }

  /** Sets the only subscriber. Call it before the first publish. */
  subscribe(subscriber: EventSubscriber): void {
    this.#delivery.subscribe(subscriber);
  }

  /** Starts to poll for entries that other processes append. */
  startPolling(): void {
    const listen = (onAppended: () => void) => this.#store.listen(onAppended);
    this.#poller = LogPoller.start({
      ...{ eventLog: this, log: this.#log, listen },
      pollMs: this.#store.isShared ? pollMs : unsharedPollMs,
    });
  }

  /**
   * Publishes events: appends the events that are not volatile, then delivers the volatile events. Returns
   * the id of each event once all appended events are durable, and null for each volatile event.
   * Events that were published earlier under the same idempotency key, of the request or of the event, are not
   * published again. The key of a request has no effect when all events are volatile. Volatile events
   * are dropped if the store fails after the other events were appended.
   *
   * Throws the same errors as `append`. After `service_unavailable` the appended events may still be
   * stored and delivered; after the other errors nothing new is published.
   */
  async publish(
    events: readonly NewEvent[],
    idempotency: AppendRequest['idempotency'],
    publisher?: Publisher,
  ): Promise<readonly (string | null)[]> {
    const logged = events.filter((event) => !event.volatile);
    const hasLogged = logged.length > 0;
    const { ids, isRepeated, newestSeq } = hasLogged
      ? await this.append({ events: logged, idempotency, publisher })
      : nothingAppended;
    const isRepeatedRequest = idempotency !== undefined && isRepeated;
    const volatileEvents = isRepeatedRequest ? [] : events.filter((event) => event.volatile);
    if (volatileEvents.length > 0) {
      // A new event has a higher number than every entry committed before. A repeated one tells nothing about these.
      const hasAppended = hasLogged && !isRepeated;
      const stamp = hasAppended ? newestSeq : await this.#prepareVolatile(publisher);
      await this.#delivery.deliverVolatile(volatileEvents, stamp);
    }
    let next = 0;
    return events.map((event) => (event.volatile ? null : (ids[next++] ?? null)));
  }

  /**
   * Appends events and returns their ids once they are durable. Throws `conflict` when an idempotency
   * key was used for another body, `invalid_token` when the API key is revoked, and `expired_token` when it
   * has expired. Throws `service_unavailable` when the limits of the API key have changed, when too many
   * events are waiting, and when the store does not respond.
   */
  async append(request: AppendRequest): Promise<AppendResult> {
    const outcome = await this.#queue.append(request);
    if (outcome.kind === 'conflict') throw createKeyConflict(outcome.event);
    if (!('seqs' in outcome)) throw createKeyRefusal(outcome.kind);
    const ids = outcome.seqs.map((seq) => this.format(seq));
    const newestSeq = outcome.seqs.reduce((newest, seq) => Math.max(newest, seq), 0);
    return { ids, isRepeated: outcome.kind === 'repeated', newestSeq };
  }

  /** Returns the id of the event `seq`. */
  format(seq: number): string {
    return formatPosition({ epoch: this.epoch, seq });
  }

  /**
   * Returns the next page of frames for a reader, from memory if they are still cached. The
   * page ends with the frame that reaches `bytesMax`. At most 4 reads from the store run at a time;
   * others wait. The page has events up to the head at the call. If `isNeeded` returns false when a read from the store could start, the page is empty.
   * Rejects when the store rejects.
   */
  async read(
    reader: Reader,
    after: number,
    bytesMax: number,
    isNeeded = () => true,
  ): Promise<FramePage> {
    const request = { reader, after, bytesMax, now: this.#wallClock() };
    // Entries applied later may give the reader topics that `reader` lacks, so their events are for the next page. A
    // control entry that is not applied yet may end the stream of the reader.
    const upTo = this.head;
    const recent = this.#delivery.readRecent(request);
    if (recent === undefined) {
      const emptyPage = {
        frames: [],
        endSeq: after,
        hasMore: true,
        hasGap: false,
        topicsBySeq: undefined,
      };
      return this.#readSemaphore.run(async () =>
        isNeeded() ? this.#readStore(request, upTo) : emptyPage,
      );
    }
    const { frames, hasMore, topicsBySeq } = recent;
    const endSeq = hasMore ? getLastSeq(frames, after) : Math.max(after, upTo);
    return { frames, endSeq, hasMore, hasGap: false, topicsBySeq };
  }

  /**
   * Reads the stored state. Its head may be ahead of what this process has applied. Concurrent calls
   * share a read. Rejects when the store rejects.
   */
  readState(): Promise<LogState> {
    return this.#stateRead.run();
  }

  /** Returns the start of a stream, see `ResumeResolver.resolve`. */
  resolveStart(state: LogState, reader: Reader, request: StartRequest): Promise<StreamStart> {
    return this.#resumeResolver.resolve(state, reader, request);
  }

  /**
   * Deletes a batch of entries that exceed a retention limit, and returns the number of deleted rows.
   * Called by a timer.
   */
  trim(): Promise<number> {
    return trimLog(this.#store, this.#limits, this.#wallClock());
  }

  /**
   * Delivers or applies all entries committed before the call, including entries of other processes.
   * Called by the poller. Rejects when the store rejects.
   */
  catchUp(): Promise<void> {
    return this.#delivery.catchUp();
  }

  /** Delivers or applies entries like `catchUp`, but never rejects: logs a failure, and the next poll tries again. */
  tryCatchUp(): Promise<void> {
    return this.#delivery.tryCatchUp();
  }

  /** Deletes a batch of expired idempotency keys and returns their number. Called by a timer. */
  sweepIdempotencyKeys(): Promise<number> {
    return this.#store.sweepIdempotencyKeys(this.#wallClock());
  }

  /** Stops polling and waits for pending writes. Idempotent. */
  async close(): Promise<void> {
    await this.#poller?.close();
    await this.#queue.idle();
  }

  async #readStore({ reader, after, bytesMax }: ReadRequest, upTo: number): Promise<FramePage> {
    const limits = { eventsMax: pageEventsMax, bytesMax };
    const page = await this.#store.read(reader, { after, upTo }, limits);
    const { events, endSeq, hasMore, trimmedSeq, topicsBySeq } = page;
    const now = this.#wallClock();
    const frames = events
      .filter((event) => !isExpired(event, now))
      .map((event) => encodeEvent(this.epoch, { seq: event.seq, event }));
    const hasGap =
      after < trimmedSeq && (await this.#store.findLastTrimmedSeq(reader, after)) > after;
    return { frames, endSeq: Math.max(after, endSeq), hasMore, hasGap, topicsBySeq };
  }

  /**
   * Applies every entry up to the stored head, so that volatile events delivered afterwards do not
   * reach a stream that should have ended, and returns that head. Throws the errors of `append` for a refused
   * API key, and `service_unavailable` when the store does not respond.
   */
  async #prepareVolatile(publisher: Publisher | undefined): Promise<number> {
    const { seq, refusal } = await this.#store.readPublishSnapshot(publisher);
    if (refusal !== undefined) throw createKeyRefusal(refusal);
    if (this.head < seq) await this.catchUp();
    if (this.head < seq) {
      const message = 'Cannot publish: the head of the event log is uncertain';
      throw new Failure('service_unavailable', message, { retryAfterMs: 1000 });
    }
    return seq;
  }

  /** Reads the state. Reads it once more if its head is newer than what this process has applied. */
  async #readConfirmedState(): Promise<LogState> {
    const state = await this.#store.readState();
    return state.seq <= this.head ? state : confirmState(this.#store, state);
  }
}

/**
 * Reads the state again, and returns the state with the lower head. With a head that is too high, a stream or
 * this process would ignore the entries up to that head.
 */
async function confirmState(store: LogStore, first: LogState): Promise<LogState> {
  const second = await store.readState();
  return second.seq < first.seq ? second : first;
}

/** Creates the failure for an idempotency key, of an event or of the request, that was used before. */
function createKeyConflict(event: LoggableEvent | undefined): Failure {
  if (event === undefined) {
    const message = 'Cannot publish: this Idempotency-Key was used for another body';
    return new Failure('conflict', message, { info: { header: 'idempotency-key' } });
  }
  const index = event.idempotency?.index;
  return createEventFailure('conflict', 'idempotencyKey was used for another event', {
    ...{ field: 'idempotencyKey', index },
  });
}

function createKeyRefusal(refusal: KeyRefusal): Failure {
  if (refusal === 'revoked')
    return new Failure('invalid_token', 'Cannot publish: the API key is revoked');
  if (refusal === 'expired')
    return new Failure('expired_token', 'Cannot publish: the API key is expired');
  const message = 'Cannot publish: the limits of the API key have changed meanwhile';
  return new Failure('service_unavailable', message, { retryAfterMs: 1000 });
}

function getLastSeq(items: readonly { readonly seq: number }[], fallback: number): number {
  return items.at(-1)?.seq ?? fallback;
}
