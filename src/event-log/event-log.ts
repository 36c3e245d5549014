import { Failure } from '../errors.js';
import type { Audience } from '../events/audience.js';
import { formatPosition } from '../events/event-id.js';
import { encodeFrame, type Frame } from '../events/frame.js';
import type { NewEvent } from '../events/publish-request.js';
import type { Logger } from '../logging/logger.js';
import { Semaphore } from '../util/semaphore.js';
import { AppendQueue } from './append-queue.js';
import { LogPoller } from './log-poller.js';
import type { AppendRequest, LoggableEvent, LoggedEvent, LogState, LogStore } from './log-store.js';
import { type ReadRequest, RecentEvents } from './recent-events.js';
import { ResumeResolver, type StreamStart } from './resume-resolver.js';
import { type RetentionLimits, trimLog } from './retention.js';

export interface FramePage {
  readonly frames: readonly Frame[];
  /** All that the reader may see up to here is in `frames` or came before. */
  readonly end: number;
  readonly more: boolean;
  /** Some of it was trimmed away before it could be read. */
  readonly gap: boolean;
}

export interface AppendResult {
  /** One for each event, in order. */
  readonly ids: readonly string[];
  /** It was appended before, under the same idempotency key. */
  readonly isRepeated: boolean;
}

/** Receives what is to be delivered to open streams: the registry. No method may throw. */
export interface EventSubscriber {
  /** Called once per event, in order, without a gap. */
  deliver(event: LoggableEvent, frame: Frame): void;
  /** Called for each volatile event published here, which the log does not keep. */
  deliverVolatile(event: LoggableEvent, frame: Frame): void;
  /** Called when events were trimmed before they could be delivered: every stream has a gap. */
  gap(): void;
}

export interface EventLogOptions {
  readonly store: LogStore;
  readonly log: Logger;
  readonly wallClock: () => number;
  readonly limits: RetentionLimits;
}

const nothingAppended: AppendResult = { ids: [], isRepeated: false };
const pageEventsMax = 256;
const catchUpEventsMax = 500;
const pollMs = { busy: 25, idle: 250, notified: 1000 };
/** Readers that are behind share the store with publishers and logins, and must not crowd it. */
const concurrentReadsMax = 4;

/**
 * The one ordered log. `append` answers when the events are durable; the subscriber gets every
 * event, in order, after that; `read` gives a reader what it may see, from any position that is
 * still kept.
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
  #recent: RecentEvents;
  #subscriber: EventSubscriber = { deliver() {}, deliverVolatile() {}, gap() {} };
  #poller: LogPoller | undefined;
  /** The newest event delivered. */
  #head: number;
  /** The newest event known to be in the log, delivered or not. */
  #committedSeq: number;
  #activeCatchUp: Promise<void> | undefined;
  #nextCatchUp: Promise<void> | undefined;

  private constructor(
    { store, log, wallClock, limits }: EventLogOptions,
    { epoch, seq }: LogState,
  ) {
    this.#store = store;
    this.#log = log;
    this.#wallClock = wallClock;
    this.#limits = limits;
    this.epoch = epoch;
    this.#head = seq;
    this.#committedSeq = seq;
    this.#recent = new RecentEvents(seq);
    this.#resumeResolver = new ResumeResolver({ store, epoch, head: () => this.#head });
    this.#queue = new AppendQueue({
      store,
      onAppended: (events, firstSeq) => this.#deliverAppended(events, firstSeq),
      onUncertainCommit: () => this.#catchUpInBackground(),
    });
  }

  static async open(options: EventLogOptions): Promise<EventLog> {
    return new EventLog(options, await options.store.state());
  }

  /** The newest event that was delivered. */
  get head(): number {
    return this.#head;
  }

  /** Events that wait to be written. */
  get waitingEvents(): number {
    return this.#queue.waitingEvents;
  }

  /** Sets the one subscriber. To be called before anything is published. */
  subscribe(subscriber: EventSubscriber): void {
    this.#subscriber = subscriber;
  }

  /** Begins to deliver what other processes append, where the store is shared. */
  startPolling(): void {
    if (!this.#store.isShared) return;
    const listen = (onAppended: () => void) => this.#store.listen(onAppended);
    this.#poller = LogPoller.start({ eventLog: this, log: this.#log, listen, pollMs });
  }

  /**
   * Publishes events: appends those that belong in the log, then delivers. Returns the id of each
   * event once all of them are durable, and null for a volatile one, which has none. Events published
   * before under the same idempotency key are not published again; a request whose events are all
   * volatile leaves nothing to recognise it by.
   *
   * Throws as `append`; then nothing was published.
   */
  async publish(
    events: readonly NewEvent[],
    idempotency: AppendRequest['idempotency'],
  ): Promise<readonly (string | null)[]> {
    const logged = events.filter((event) => !event.volatile);
    const { ids, isRepeated } =
      logged.length === 0 ? nothingAppended : await this.append({ events: logged, idempotency });
    for (const event of events) {
      if (event.volatile && !isRepeated) this.#deliverVolatile(event);
    }
    let next = 0;
    return events.map((event) => (event.volatile ? null : (ids[next++] ?? null)));
  }

  /**
   * Answers the ids once the events are durable. Throws `conflict` when the idempotency key was used
   * for another body, `service_unavailable` when too many wait or the store does not answer.
   */
  async append(request: AppendRequest): Promise<AppendResult> {
    const { kind, firstSeq } = await this.#queue.append(request);
    if (kind === 'conflict') {
      const message = 'Cannot publish: this Idempotency-Key was used for another body';
      throw new Failure('conflict', message, { info: { header: 'idempotency-key' } });
    }
    const ids = request.events.map((_, index) => this.format(firstSeq + index));
    return { ids, isRepeated: kind === 'repeated' };
  }

  format(seq: number): string {
    return formatPosition({ epoch: this.epoch, seq });
  }

  /**
   * The next frames for a reader, from memory if they are still there; the frame that goes beyond
   * `bytesMax` is the last. At most 4 readers are at the store at a time; for one that is no longer
   * `isWanted` when its turn comes nothing is read. Rejects as the store does.
   */
  async read(
    audiences: readonly Audience[],
    after: number,
    bytesMax: number,
    isNeeded = () => true,
  ): Promise<FramePage> {
    const request = { audiences, after, bytesMax, now: this.#wallClock() };
    const recent = this.#recent.read(request);
    if (recent === undefined) {
      const emptyPage = { frames: [], end: after, more: true, gap: false };
      return this.#readSemaphore.run(async () =>
        isNeeded() ? this.#readStore(request) : emptyPage,
      );
    }
    const { frames, more } = recent;
    const end = more ? lastSeq(frames, after) : Math.max(after, this.#head);
    return { frames, end, more, gap: false };
  }

  /** See `LogStarts`. */
  resolveLastEventId(
    audiences: readonly Audience[],
    lastEventId: string | undefined,
  ): Promise<StreamStart> {
    return this.#resumeResolver.resolveLastEventId(audiences, lastEventId);
  }

  /** See `LogStarts`. */
  resolvePosition(audiences: readonly Audience[], storedPosition: string): Promise<StreamStart> {
    return this.#resumeResolver.resolvePosition(audiences, storedPosition);
  }

  /** Removes a batch of what is over a limit; answers how many rows went. For a timer. */
  trim(): Promise<number> {
    return trimLog(this.#store, this.#limits, this.#wallClock());
  }

  /**
   * Delivers everything that is in the log by now, also what others have written; for a poll or a
   * wake-up. Rejects when the store does.
   */
  catchUp(): Promise<void> {
    if (this.#activeCatchUp === undefined) {
      this.#activeCatchUp = this.#deliverPending().finally(() => {
        this.#activeCatchUp = undefined;
      });
      return this.#activeCatchUp;
    }
    // The one under way may have looked too early: one more, for all who ask meanwhile.
    this.#nextCatchUp ??= this.#activeCatchUp
      .catch(() => {}) // Whoever began it hears of that.
      .then(() => {
        this.#nextCatchUp = undefined;
        return this.catchUp();
      });
    return this.#nextCatchUp;
  }

  /** Deletes a batch of expired idempotency keys and returns how many. For a timer. */
  sweepIdempotencyKeys(): Promise<number> {
    return this.#store.sweepIdempotencyKeys(this.#wallClock());
  }

  /** Ends polling and waits for what is being written. Idempotent. */
  async close(): Promise<void> {
    await this.#poller?.close();
    await this.#queue.idle();
  }

  async #readStore({ audiences, after, bytesMax }: ReadRequest): Promise<FramePage> {
    const head = this.#head; // What is committed by now is in any later query.
    const limits = { eventsMax: pageEventsMax, bytesMax };
    const { events, more } = await this.#store.read(audiences, after, limits);
    const now = this.#wallClock();
    const frames = events
      .filter((event) => !isExpired(event, now))
      .map((event) => this.#encode(event, event.seq));
    const { trimmedSeq } = await this.#store.state(); // After the page: what it lacks shows here.
    const last = lastSeq(events, after);
    return { frames, end: more ? last : Math.max(last, head), more, gap: after < trimmedSeq };
  }

  #deliverAppended(events: readonly LoggableEvent[], firstSeq: number): void {
    this.#committedSeq = Math.max(this.#committedSeq, firstSeq + events.length - 1);
    if (firstSeq !== this.#head + 1) {
      void this.#catchUpInBackground(); // Others came first: theirs are read, and then ours.
      return;
    }
    for (const event of events) this.#deliver(event, this.#head + 1);
  }

  /** Never rejects: the next append, or the poller, tries again. */
  async #catchUpInBackground(): Promise<void> {
    try {
      await this.catchUp();
    } catch (cause) {
      this.#log.warn({ cause }, 'event log could not be read, retrying');
    }
  }

  async #deliverPending(): Promise<void> {
    const { seq } = await this.#store.state();
    this.#committedSeq = Math.max(this.#committedSeq, seq);
    while (this.#head < this.#committedSeq) {
      const upTo = Math.min(this.#committedSeq, this.#head + catchUpEventsMax);
      for (const event of await this.#store.readAll(this.#head, upTo)) {
        if (event.seq === this.#head + 1) this.#deliver(event, event.seq);
      }
      if (this.#head < upTo) this.#skipTo(upTo);
    }
  }

  /** Trimmed before we got to it: nobody can be given what is gone, but everybody can be told. */
  #skipTo(seq: number): void {
    this.#log.warn({ from: this.#head, to: seq }, 'events were trimmed before delivery');
    this.#head = seq;
    this.#recent = new RecentEvents(seq);
    this.#subscriber.gap();
  }

  #deliver(event: LoggableEvent, seq: number): void {
    const frame = this.#encode(event, seq);
    this.#head = seq;
    this.#recent.add(frame, event);
    this.#subscriber.deliver(event, frame);
  }

  #deliverVolatile(event: NewEvent): void {
    const { type, data } = event;
    const bytes = encodeFrame(type === undefined ? { data } : { event: type, data });
    this.#subscriber.deliverVolatile(event, { seq: 0, bytes });
  }

  #encode({ type, data }: LoggableEvent, seq: number): Frame {
    const fields = { id: this.format(seq), data };
    return { seq, bytes: encodeFrame(type === undefined ? fields : { ...fields, event: type }) };
  }
}

function lastSeq(items: readonly { readonly seq: number }[], fallback: number): number {
  return items.at(-1)?.seq ?? fallback;
}

function isExpired({ expiresAt }: LoggedEvent, now: number): boolean {
  return expiresAt !== undefined && expiresAt <= now;
}
