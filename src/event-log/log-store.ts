import type { Subscription } from '../db/database.js';
import type { Audience } from '../events/audience.js';
import type { NewEvent } from '../events/publish-request.js';

export type LoggableEvent = Omit<NewEvent, 'volatile'>;

export interface LoggedEvent extends LoggableEvent {
  readonly seq: number;
}

/** Events that are written together: all of them, with consecutive numbers, or none. */
export interface AppendRequest {
  readonly events: readonly LoggableEvent[];
  readonly idempotency: { readonly keyHash: string; readonly bodyHash: string } | undefined;
}

/** `repeated`: the key was used for the same before. `conflict`: it was used for something else. */
export interface AppendOutcome {
  readonly kind: 'appended' | 'repeated' | 'conflict';
  readonly firstSeq: number;
}

export interface LogState {
  readonly epoch: string;
  /** The newest number taken; numbers have no gaps. */
  readonly seq: number;
  /** Everything up to here is gone. */
  readonly trimmedSeq: number;
  readonly bytes: number;
}

/** The log as some audiences and one number see it. */
export interface LogVisibility extends LogState {
  /** The event of that number is kept, and for one of them. */
  readonly isVisible: boolean;
}

/** How much is read at once. One event is always read, however large. */
export interface PageLimits {
  readonly eventsMax: number;
  /** Of data: the event that goes beyond is the last. */
  readonly bytesMax: number;
}

export interface StoredPage {
  readonly events: readonly LoggedEvent[];
  /** There may be more after the last one. */
  readonly more: boolean;
}

/** How much is trimmed at once. */
export interface TrimBatchLimits {
  readonly eventsMax: number;
  readonly recipientsMax: number;
}

export interface TrimCandidate {
  readonly seq: number;
  readonly createdAt: number;
  /** Of data. */
  readonly bytes: number;
}

/** Of the oldest events: from the first one after `after`, where the last trimming ended. */
export interface TrimRange {
  readonly after: number;
  readonly upTo: number;
  /** How much data that is. */
  readonly bytes: number;
}

/**
 * An engine that keeps the events. Every engine makes the same promises, which one test suite checks;
 * nothing outside of its folder knows which engine it is.
 */
export interface LogStore {
  /** Whether other processes may append, so that the log has to be polled. */
  readonly isShared: boolean;
  /** Rejects with `service_unavailable` when the log is another than the one that was opened. */
  state(): Promise<LogState>;
  /** The same, asked together with whether an event that is kept is for any of these audiences. */
  stateWithVisibility(audiences: readonly Audience[], seq: number): Promise<LogVisibility>;
  /** One transaction; when it is over, everything is durable. Commit order is number order. */
  append(requests: readonly AppendRequest[]): Promise<readonly AppendOutcome[]>;
  /** The next events for these audiences, in order. */
  read(audiences: readonly Audience[], after: number, limits: PageLimits): Promise<StoredPage>;
  /** Every event in a range, with its audiences. */
  readAll(after: number, upTo: number): Promise<LoggedEvent[]>;
  lastVisible(audiences: readonly Audience[], upTo: number): Promise<number | undefined>;
  /**
   * The newest event for any of these audiences that was trimmed; 0 if none was. A newer one may be
   * answered, which makes a client too careful; never an older one.
   */
  lastTrimmed(audiences: readonly Audience[]): Promise<number>;
  /** The first events after a position: one at least, more as long as they are within the limits. */
  oldestEvents(after: number, limits: TrimBatchLimits): Promise<TrimCandidate[]>;
  /** Returns how many rows were deleted: 0 when it was trimmed beyond `after` meanwhile. */
  trim(range: TrimRange): Promise<number>;
  /** Deletes a batch of expired idempotency keys and returns how many. For a timer. */
  sweepIdempotencyKeys(now: number): Promise<number>;
  /**
   * Calls `onAppended` after other processes have appended, and whenever some of that may have been
   * missed. Undefined where the engine cannot notify, and polling is all there is. Never throws.
   */
  listen(onAppended: () => void): Subscription | undefined;
}
