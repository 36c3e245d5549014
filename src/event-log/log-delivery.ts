import type { ControlEntry } from '../events/control-entry.js';
import { parseControlEntry } from '../events/control-entry.js';
import type { Frame } from '../events/frame.js';
import type { Logger } from '../logging/logger.js';
import { SharedCall } from '../util/shared-call.js';
import type {
  LogEntry,
  LoggableEvent,
  LoggedControlEntry,
  LogState,
  LogStore,
  NumberedEvent,
} from './log-store.js';
import { encodeEvent, encodeVolatile, isExpired } from './logged-event.js';
import { type ReadRequest, RecentEvents, type RecentPage } from './recent-events.js';

/**
 * Receives events for delivery to open streams; implemented by `Registry`. No method but `applyControl` may
 * throw.
 */
export interface EventSubscriber {
  /** Called once per event, in sequence order and without gaps. */
  deliver(event: LoggableEvent, frame: Frame): void;
  /**
   * Called for each volatile event published in this process. It is not in the event log. All entries up to
   * `stamp` have been applied. A stream receives an event of a topic only if it has had the topic since `stamp`
   * or earlier.
   */
  deliverVolatile(event: LoggableEvent, frame: Frame, stamp: number): void;
  /**
   * Called once per control entry, in one sequence order with the events. Nothing else of the event log is delivered or
   * applied until the promise settles.
   */
  applyControl(entry: ControlEntry, seq: number): void | Promise<void>;
  /** Called when entries were trimmed before they could be applied, so any stream may have lost events. */
  handleGap(): void;
}

export interface LogDeliveryParts {
  readonly store: Pick<LogStore, 'readState' | 'readAll'>;
  readonly log: Logger;
  readonly wallClock: () => number;
}

/** Limits of one read while catching up. A single event may be larger. */
const catchUpMax = { entries: 500, bytes: 16 * 1024 * 1024 };

const noSubscriber: EventSubscriber = {
  deliver() {},
  deliverVolatile() {},
  applyControl() {},
  handleGap() {},
};

/**
 * Passes each entry of the event log to the subscriber once, in sequence order. Entries that this process has
 * appended come from memory. Entries of other processes are read from the store. Caches the frames of the
 * newest events.
 */
export class LogDelivery {
  readonly #parts: LogDeliveryParts;
  readonly #epoch: string;
  readonly #catchUp = new SharedCall(() => this.#deliverPending());
  #recent: RecentEvents;
  #subscriber = noSubscriber;
  #hasLoggedUnknownEntry = false;
  #head: number;
  /** Number of the newest event that this process has appended. The event may not be delivered yet. */
  #committedSeq: number;

  /** Delivery starts after the head in `state`. */
  constructor(parts: LogDeliveryParts, { epoch, seq }: LogState) {
    this.#parts = parts;
    this.#epoch = epoch;
    this.#head = seq;
    this.#committedSeq = seq;
    this.#recent = new RecentEvents(seq);
  }

  /** Number of the newest entry that was delivered or applied. */
  get head(): number {
    return this.#head;
  }

  /** Sets the only subscriber. */
  subscribe(subscriber: EventSubscriber): void {
    this.#subscriber = subscriber;
  }

  /** Returns the next frames for a reader, or undefined when some may not be cached. */
  readRecent(request: ReadRequest): RecentPage | undefined {
    return this.#recent.read(request);
  }

  /** Delivers events that this process has appended, after the entries that precede them. */
  deliverAppended(added: readonly NumberedEvent[]): void {
    this.#committedSeq = Math.max(this.#committedSeq, added.at(-1)?.seq ?? 0);
    if (added[0]?.seq !== this.#head + 1) {
      void this.tryCatchUp(); // Delivers the entries of other processes first, then these.
      return;
    }
    for (const numbered of added) this.#deliver(numbered);
  }

  /** Delivers or applies all entries committed before the call. Rejects when the store rejects. */
  catchUp(): Promise<void> {
    return this.#catchUp.run();
  }

  /**
   * Delivers or applies all entries committed before the call, like `catchUp`. Never rejects: if the
   * store fails, the failure is logged, and the next append or poll tries again.
   */
  async tryCatchUp(): Promise<void> {
    try {
      await this.catchUp();
    } catch (cause) {
      this.#parts.log.warn({ cause }, 'event log could not be read, retrying');
    }
  }

  /**
   * Delivers volatile events once this process has applied every entry up to `stamp`, and every entry that it has
   * appended, so that they reach no stream that should have ended. Drops them if the store fails. Never rejects.
   */
  async deliverVolatile(events: readonly LoggableEvent[], stamp: number): Promise<void> {
    // Not the stamp: a stream that got a topic after `stamp` does not receive the events.
    const upTo = Math.max(stamp, this.#committedSeq);
    if (this.#head < upTo) await this.tryCatchUp();
    if (this.#head < upTo) return;
    for (const event of events)
      this.#subscriber.deliverVolatile(event, encodeVolatile(event), stamp);
  }

  async #deliverPending(): Promise<void> {
    const { store } = this.#parts;
    const { seq } = await store.readState();
    for (;;) {
      const end = Math.max(seq, this.#committedSeq);
      if (this.#head >= end) return;
      const range = { after: this.#head, upTo: Math.min(end, this.#head + catchUpMax.entries) };
      const { entries, upTo } = await store.readAll(range, catchUpMax.bytes);
      await this.#applyAll(entries);
      if (this.#head >= upTo) continue;
      // Entries are missing because they were trimmed, or because the head that was read was too high.
      if ((await store.readState()).seq < upTo) return;
      this.#skipTo(upTo);
    }
  }

  /** Skips entries that were trimmed before delivery, and reports the gap to the subscriber. */
  #skipTo(seq: number): void {
    this.#parts.log.warn({ from: this.#head, to: seq }, 'events were trimmed before delivery');
    this.#head = seq;
    this.#recent = new RecentEvents(seq);
    this.#subscriber.handleGap();
  }

  async #applyAll(entries: readonly LogEntry[]): Promise<void> {
    for (const entry of entries) {
      // While a control entry is applied, and after it, events of this process may be delivered.
      if (entry.seq !== this.#head + 1) continue;
      if ('control' in entry) await this.#applyControl(entry);
      else this.#deliver({ seq: entry.seq, event: entry });
    }
  }

  /** Applies a control entry, and moves the head when all streams have it. Never rejects. */
  async #applyControl({ seq, control }: LoggedControlEntry): Promise<void> {
    await this.#passControl(control, seq);
    this.#head = seq;
    this.#recent.addInvisible(seq);
  }

  async #passControl(control: string, seq: number): Promise<void> {
    let entry: ControlEntry | undefined;
    try {
      entry = parseControlEntry(control);
      if (entry === undefined) this.#logUnknownEntry(seq);
      else await this.#subscriber.applyControl(entry, seq);
    } catch (cause) {
      this.#parts.log.error({ cause, seq, kind: entry?.kind }, 'control entry was not applied');
      this.#subscriber.handleGap(); // Some streams may have to end. Their clients return to the stored state.
    }
  }

  #logUnknownEntry(seq: number): void {
    if (!this.#hasLoggedUnknownEntry) {
      this.#parts.log.warn({ seq }, 'control entry of a newer version is ignored');
    }
    this.#hasLoggedUnknownEntry = true;
  }

  /** Delivers an event to the subscriber, unless it expired while this process was behind. */
  #deliver(numbered: NumberedEvent): void {
    const { event, seq } = numbered;
    if (isExpired(event, this.#parts.wallClock())) {
      this.#head = seq;
      this.#recent.addInvisible(seq);
      return;
    }
    const frame = encodeEvent(this.#epoch, numbered);
    this.#head = seq;
    this.#recent.add(frame, event);
    this.#subscriber.deliver(event, frame);
  }
}
