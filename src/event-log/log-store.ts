import type { Subscription } from '../db/database.js';
import type { Audience } from '../events/audience.js';
import type { NewEvent } from '../events/publish-request.js';

export type LoggableEvent = Omit<NewEvent, 'volatile'>;

export interface LoggedEvent extends LoggableEvent {
  readonly seq: number;
}

/** A control entry as it is stored, see `ControlEntry`. */
export interface LoggedControlEntry {
  readonly seq: number;
  readonly control: string;
}

/** What has a number. */
export type LogEntry = LoggedEvent | LoggedControlEntry;

/** Events that are written together: all of them, with consecutive numbers, or none. */
export interface AppendRequest {
  readonly events: readonly LoggableEvent[];
  readonly idempotency: { readonly keyHash: string; readonly bodyHash: string } | undefined;
  /** The API key that publishes: nothing is written once it is revoked. */
  readonly keyId?: string | undefined;
}

/**
 * `repeated`: the key was used for the same before. `conflict`: it was used for something else.
 * `revoked`: the API key is, and `firstSeq` means nothing.
 */
export interface AppendOutcome {
  readonly kind: 'appended' | 'repeated' | 'conflict' | 'revoked';
  readonly firstSeq: number;
}

/** Where an event that the log does not keep stands among those that it does. */
export interface PublishStamp {
  /** The head: whoever delivers the event must have applied everything up to there. */
  readonly seq: number;
  readonly isRevoked: boolean;
}

export interface LogState {
  readonly epoch: string;
  /** The newest sequence number. There are no gaps. */
  readonly seq: number;
  /** Every event up to this number has been trimmed. */
  readonly trimmedSeq: number;
  /** Events that are kept; control entries are not counted. */
  readonly events: number;
  readonly bytes: number;
}

/** State of the log, and whether one event is visible to given audiences. */
export interface LogVisibility extends LogState {
  /** The event is stored and addressed to one of the audiences. */
  readonly isVisible: boolean;
}

/** Numbers above `after`, up to and including `upTo`. */
export interface SeqRange {
  readonly after: number;
  readonly upTo: number;
}

/** How much is read at once. One event is always read, however large. */
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
  readonly isControlEntry: boolean;
  readonly createdAt: number;
  /** Size of the data. */
  readonly bytes: number;
}

/** Of the oldest entries: from the first one after `after`, where the last trimming ended. */
export interface TrimRange {
  readonly after: number;
  readonly upTo: number;
  /** How many of them are events. */
  readonly events: number;
  /** How much data that is. */
  readonly bytes: number;
}

/**
 * Storage engine of the event log. One test suite checks this contract for every engine; nothing
 * outside of an engine's folder depends on which engine it is.
 */
export interface LogStore {
  /**
   * Whether other servers may append, so that the log has to be polled often. To a log that is not
   * shared only commands append, and only control entries.
   */
  readonly isShared: boolean;
  /** Reads the state. Rejects with `service_unavailable` when the stored log was replaced. */
  state(): Promise<LogState>;
  /** Reads the state, and whether the event `seq` is stored and visible to these audiences. */
  stateWithVisibility(audiences: readonly Audience[], seq: number): Promise<LogVisibility>;
  /** Appends in one transaction, durable once it resolves. Commits are in sequence order. */
  append(requests: readonly AppendRequest[]): Promise<readonly AppendOutcome[]>;
  /** Reads the head, and whether the API key is revoked, in one snapshot. */
  stamp(keyId: string | undefined): Promise<PublishStamp>;
  /** The next events for these audiences in a range, in order. */
  read(audiences: readonly Audience[], range: SeqRange, limits: PageLimits): Promise<StoredPage>;
  /** Every entry in a range, with its audiences. */
  readAll(after: number, upTo: number): Promise<LogEntry[]>;
  lastVisible(audiences: readonly Audience[], upTo: number): Promise<number | undefined>;
  /**
   * Returns the newest trimmed event for any of these audiences; 0 if there is none. The result may
   * be too high, so that a client gets `too_old` although it lost nothing, but never too low.
   */
  lastTrimmed(audiences: readonly Audience[]): Promise<number>;
  /** The first entries after a position: one at least, more as long as they are within the limits. */
  oldestEntries(after: number, limits: TrimBatchLimits): Promise<TrimCandidate[]>;
  /** Returns how many rows were deleted: 0 when it was trimmed beyond `after` meanwhile. */
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
