import type { ControlEntry } from '../events/control-entry.js';
import { parseControlEntry } from '../events/control-entry.js';
import { encodeFrame, type Frame } from '../events/frame.js';
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
import { encodeEvent, isExpired } from './logged-event.js';
import { type ReadRequest, RecentEvents, type RecentPage } from './recent-events.js';

/** Receives events for delivery to open streams; implemented by `Registry`. No method may throw. */
export interface EventSubscriber {
  /** Called once per event, in sequence order and without gaps. */
  deliver(event: LoggableEvent, frame: Frame): void;
  /** Called for each volatile event published in this process. It is not in the event log. */
  deliverVolatile(event: LoggableEvent, frame: Frame): void;
  /** Called once per control entry. Events and control entries arrive in one sequence order. */
  applyControl(entry: ControlEntry, seq: number): void;
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
   * Delivers volatile events once this process has applied every entry known to be committed, so that
   * they reach no stream that should have ended. Drops them if the store fails. Never rejects.
   */
  async deliverVolatile(events: readonly LoggableEvent[]): Promise<void> {
    const committedSeq = this.#committedSeq;
    if (this.#head < committedSeq) await this.tryCatchUp();
    if (this.#head < committedSeq) return;
    for (const event of events) {
      const { type, data } = event;
      const bytes = encodeFrame(type === undefined ? { data } : { event: type, data });
      this.#subscriber.deliverVolatile(event, { seq: 0, bytes });
    }
  }

  async #deliverPending(): Promise<void> {
    const { store } = this.#parts;
    const { seq } = await store.readState();
    for (;;) {
      const end = Math.max(seq, this.#committedSeq);
      if (this.#head >= end) return;
      const range = { after: this.#head, upTo: Math.min(end, this.#head + catchUpMax.entries) };
      const { entries, upTo } = await store.readAll(range, catchUpMax.bytes);
      for (const entry of entries) if (entry.seq === this.#head + 1) this.#apply(entry);
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

  #apply(entry: LogEntry): void {
    if ('control' in entry) this.#applyControl(entry);
    else this.#deliver({ seq: entry.seq, event: entry });
  }

  #applyControl({ seq, control }: LoggedControlEntry): void {
    this.#head = seq;
    this.#recent.addInvisible(seq);
    const entry = parseControlEntry(control);
    if (entry !== undefined) {
      this.#subscriber.applyControl(entry, seq);
      return;
    }
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
