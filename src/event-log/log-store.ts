import type { Subscription } from '../db/database.js';
import type { Audience } from '../events/audience.js';
import type { NewEvent } from '../events/publish-request.js';

export type LoggableEvent = Omit<NewEvent, 'volatile'>;

export interface LoggedEvent extends LoggableEvent {
  readonly seq: number;
}

/** Events that are written atomically, with consecutive sequence numbers. */
export interface AppendRequest {
  readonly events: readonly LoggableEvent[];
  readonly idempotency: { readonly keyHash: string; readonly bodyHash: string } | undefined;
}

/**
 * `repeated`: the key was used for the same body before. `conflict`: it was used for another body.
 */
export interface AppendOutcome {
  readonly kind: 'appended' | 'repeated' | 'conflict';
  readonly firstSeq: number;
}

export interface LogState {
  readonly epoch: string;
  /** The newest sequence number. There are no gaps. */
  readonly seq: number;
  /** Every event up to this number has been trimmed. */
  readonly trimmedSeq: number;
  /** Total size of the stored data. */
  readonly bytes: number;
}

/** State of the log, and whether one event is visible to given audiences. */
export interface LogVisibility extends LogState {
  /** The event is stored and addressed to one of the audiences. */
  readonly isVisible: boolean;
}

/** Limits of one page. A page has at least one event, however large. */
export interface PageLimits {
  readonly eventsMax: number;
  /** Size of data: the event that reaches it is the last. */
  readonly bytesMax: number;
}

export interface StoredPage {
  readonly events: readonly LoggedEvent[];
  /** There may be more events after the last one. */
  readonly more: boolean;
}

/** Limits of one trim batch. */
export interface TrimBatchLimits {
  readonly eventsMax: number;
  readonly recipientsMax: number;
}

export interface TrimCandidate {
  readonly seq: number;
  readonly createdAt: number;
  /** Size of the data. */
  readonly bytes: number;
}

/** A range of the oldest events to trim. `after` is where the last trim ended. */
export interface TrimRange {
  readonly after: number;
  readonly upTo: number;
  /** Total size of the data in the range. */
  readonly bytes: number;
}

/**
 * Storage engine of the event log. One test suite checks this contract for every engine; nothing
 * outside of an engine's folder depends on which engine it is.
 */
export interface LogStore {
  /** Whether other processes can append, so that the log has to be polled. */
  readonly isShared: boolean;
  /** Reads the state. Rejects with `service_unavailable` when the stored log was replaced. */
  state(): Promise<LogState>;
  /** Reads the state, and whether the event `seq` is stored and visible to these audiences. */
  stateWithVisibility(audiences: readonly Audience[], seq: number): Promise<LogVisibility>;
  /** Appends in one transaction, durable once it resolves. Commits are in sequence order. */
  append(requests: readonly AppendRequest[]): Promise<readonly AppendOutcome[]>;
  /** Returns the next events for these audiences after a position, in order. */
  read(audiences: readonly Audience[], after: number, limits: PageLimits): Promise<StoredPage>;
  /** Returns every event with `after < seq <= upTo`, with its audiences. */
  readAll(after: number, upTo: number): Promise<LoggedEvent[]>;
  /** Returns the newest stored event up to `upTo` that is visible to these audiences. */
  lastVisible(audiences: readonly Audience[], upTo: number): Promise<number | undefined>;
  /**
   * Returns the newest trimmed event for any of these audiences; 0 if there is none. The result may
   * be too high, so that a client gets `too_old` although it lost nothing, but never too low.
   */
  lastTrimmed(audiences: readonly Audience[]): Promise<number>;
  /** Returns the first events after a position, within the limits, but at least one. */
  oldestEvents(after: number, limits: TrimBatchLimits): Promise<TrimCandidate[]>;
  /** Returns the number of deleted rows: 0 when another process has trimmed meanwhile. */
  trim(range: TrimRange): Promise<number>;
  /** Deletes a batch of expired idempotency keys and returns how many. For a timer. */
  sweepIdempotencyKeys(now: number): Promise<number>;
  /**
   * Calls `onAppended` after other processes have appended, and whenever a notification may have
   * been missed. Returns undefined when the engine cannot notify and has to be polled. Never
   * throws.
   */
  listen(onAppended: () => void): Subscription | undefined;
}
