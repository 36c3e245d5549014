import type { Subscription } from '../db/database.js';
import type { Audience } from '../events/audience.js';
import type { IdempotencyKey } from '../events/idempotency-key.js';
import type { NewEvent } from '../events/publish-request.js';

export type LoggableEvent = Omit<NewEvent, 'volatile'>;

export interface LoggedEvent extends LoggableEvent {
  readonly seq: number;
}

/** A stored control entry; `control` is the text of a `ControlEntry`. */
export interface LoggedControlEntry {
  readonly seq: number;
  readonly control: string;
}

/** An entry of the event log: an event or a control entry. Each has a sequence number. */
export type LogEntry = LoggedEvent | LoggedControlEntry;

/** Events that are written in one transaction. Either all or none of the new ones are written. */
export interface AppendRequest {
  /** Those with an idempotency key of their own are written unless they were written before. */
  readonly events: readonly LoggableEvent[];
  /** The idempotency key of all events together. Then none of them has a key of its own. */
  readonly idempotency: IdempotencyKey | undefined;
  /** The API key that publishes; idempotency keys belong to it. If it is revoked, nothing is written. */
  readonly keyId?: string | undefined;
}

/** The numbers of the events of a request, in its order. */
export interface AppendedEvents {
  /** `repeated`: every event was appended before, under an idempotency key with the same body. */
  readonly kind: 'appended' | 'repeated';
  readonly seqs: readonly number[];
  /** The new events, with consecutive numbers. */
  readonly added: readonly NumberedEvent[];
}

/** Nothing was appended, because an idempotency key was used for another body before. */
export interface AppendConflict {
  readonly kind: 'conflict';
  /** The event whose own key it is; undefined for the key of the request. */
  readonly event: LoggableEvent | undefined;
}

/** `revoked`: nothing was appended, because the API key is revoked. */
export type AppendOutcome = AppendedEvents | AppendConflict | { readonly kind: 'revoked' };

export interface NumberedEvent {
  readonly seq: number;
  readonly event: LoggableEvent;
}

/** The position of a volatile event among the entries of the event log. */
export interface PublishStamp {
  /** The head. All entries up to it must be applied before the event is delivered. */
  readonly seq: number;
  readonly isRevoked: boolean;
}

export interface LogState {
  readonly epoch: string;
  /** The newest sequence number. Sequence numbers have no gaps. */
  readonly seq: number;
  /** Every entry up to this number has been trimmed. */
  readonly trimmedSeq: number;
  /** Number of stored events, without control entries. */
  readonly events: number;
  /** Size of the stored events, see `getStoredBytes`. */
  readonly bytes: number;
}

/** Numbers above `after`, up to and including `upTo`. */
export interface SeqRange {
  readonly after: number;
  readonly upTo: number;
}

/** Limits of one page. A page has at least one event, however large, if there is any. */
export interface PageLimits {
  readonly eventsMax: number;
  /** Size of the data. The page ends with the event that reaches it. */
  readonly bytesMax: number;
}

export interface StoredPage {
  readonly events: readonly LoggedEvent[];
  /** Whether more events may follow the last one. */
  readonly more: boolean;
  /** Every entry up to this number had been trimmed when the page was read. */
  readonly trimmedSeq: number;
}

/** All entries up to `upTo`, except those that have been trimmed. */
export interface LoggedRange {
  readonly entries: readonly LogEntry[];
  readonly upTo: number;
}

/** Limits of one trim batch. */
export interface TrimBatchLimits {
  readonly eventsMax: number;
  readonly recipientsMax: number;
}

/** One of the oldest stored entries. */
export interface TrimCandidate {
  readonly seq: number;
  readonly isControlEntry: boolean;
  readonly createdAt: number;
  /** See `getStoredBytes`. */
  readonly bytes: number;
}

/** The oldest entries, which are trimmed: those above `after`, up to and including `upTo`. */
export interface TrimRange {
  /** Where the last trim ended. */
  readonly after: number;
  readonly upTo: number;
  /** Number of events in the range, without control entries. */
  readonly events: number;
  /** Size of the events in the range, see `getStoredBytes`. */
  readonly bytes: number;
}

/**
 * Stores the event log. One test suite checks every implementation of this interface, and only the
 * folder of an implementation depends on how it stores.
 */
export interface LogStore {
  /**
   * Whether other server processes may append, so that the event log has to be polled often. To an
   * event log that is not shared only commands append, and only control entries.
   */
  readonly isShared: boolean;
  /** Reads the state. Rejects with `service_unavailable` after the stored event log was replaced. */
  state(): Promise<LogState>;
  /**
   * Appends in one transaction. The events are durable when the promise resolves. Transactions commit
   * in the order of sequence numbers.
   */
  append(requests: readonly AppendRequest[]): Promise<readonly AppendOutcome[]>;
  /** Reads the head, and whether the API key is revoked, in one snapshot. */
  stamp(keyId: string | undefined): Promise<PublishStamp>;
  /** Reads the next events for these audiences in a range, in sequence order. */
  read(audiences: readonly Audience[], range: SeqRange, limits: PageLimits): Promise<StoredPage>;
  /**
   * Reads the first entries of a range, in sequence order; events with their audiences. The result ends
   * with the event that reaches `bytesMax`, see `getStoredBytes`; `upTo` is the number where it ends.
   */
  readAll(range: SeqRange, bytesMax: number): Promise<LoggedRange>;
  /**
   * Returns the newest trimmed event for any of these audiences; 0 if there is none. The result may
   * be too high, so that a client gets `too_old` although it lost nothing, but never too low.
   */
  lastTrimmed(audiences: readonly Audience[]): Promise<number>;
  /** Reads the first entries after a sequence number: as many as the limits allow, at least one. */
  oldestEntries(after: number, limits: TrimBatchLimits): Promise<TrimCandidate[]>;
  /**
   * Deletes a range and returns the number of deleted rows. Deletes nothing when another process has
   * trimmed beyond `after` meanwhile. No append waits for a trim that waits for locked rows.
   */
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
