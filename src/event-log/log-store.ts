import type { Subscription } from '../db/database.js';
import type { IdempotencyKey } from '../events/idempotency-key.js';
import type { NewEvent } from '../events/publish-request.js';
import type { Reader, TopicsBySeq } from '../events/topic.js';

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

/** The API key with which a request publishes, and the limits that its events were checked against. */
export interface Publisher {
  readonly keyId: string;
  /** The ids of all recipients begin with this text. Undefined and `''` allow any recipient. */
  readonly userPrefix?: string | undefined;
  /** These patterns match the topics of all events, which have no other recipients; undefined: no such limit. */
  readonly topicPatterns?: readonly string[] | undefined;
}

/**
 * The reason why an API key may not publish: the key is revoked or has expired, or its limits have changed since
 * the events were checked.
 */
export type KeyRefusal = 'revoked' | 'expired' | 'limits_changed';

/** Events that are written in one transaction. Either all or none of the new events are written. */
export interface AppendRequest {
  /** An event with its own idempotency key is written only if no earlier event had that key. */
  readonly events: readonly LoggableEvent[];
  /** The idempotency key of the request. If it is set, no event has its own key. */
  readonly idempotency: IdempotencyKey | undefined;
  /** Idempotency keys are separate for each API key. If the API key is refused, nothing is written. */
  readonly publisher?: Publisher | undefined;
}

/** The outcome of a request whose events are all in the event log. */
export interface AppendedEvents {
  /** `repeated`: every event was appended before, under an idempotency key with the same body. */
  readonly kind: 'appended' | 'repeated';
  /** The sequence numbers of all events, in the order of the request. */
  readonly seqs: readonly number[];
  /** The new events, with consecutive sequence numbers. */
  readonly added: readonly NumberedEvent[];
}

/** The outcome of a request that appended nothing, because an idempotency key was used before for another body. */
export interface AppendConflict {
  readonly kind: 'conflict';
  /** The event whose own key was used before; undefined if it was the key of the request. */
  readonly event: LoggableEvent | undefined;
}

/** The outcome of a request. With a `KeyRefusal` as `kind`, nothing was appended. */
export type AppendOutcome = AppendedEvents | AppendConflict | { readonly kind: KeyRefusal };

export interface NumberedEvent {
  readonly seq: number;
  readonly event: LoggableEvent;
}

/** The head and the state of an API key, read together before volatile events are delivered. */
export interface PublishSnapshot {
  /** The head. All entries up to it must be applied before the volatile events are delivered. */
  readonly seq: number;
  /** The reason why the API key may not publish; undefined if it may. */
  readonly refusal: KeyRefusal | undefined;
}

export interface LogState {
  readonly epoch: string;
  /** The newest sequence number. Sequence numbers have no gaps. */
  readonly seq: number;
  /** Every entry up to this number has been trimmed. */
  readonly trimmedSeq: number;
  /** Number of stored events, without control entries. */
  readonly eventCount: number;
  /** Size of the stored events, see `getStoredBytes`. */
  readonly bytes: number;
}

/** The sequence numbers above `after`, up to and including `upTo`. */
export interface SeqRange {
  readonly after: number;
  readonly upTo: number;
}

/** Limits of one page. A page has at least one event, however large, if there is any. */
export interface PageLimits {
  readonly eventsMax: number;
  /** Limits the size of the data. The page ends with the event that reaches the limit. */
  readonly bytesMax: number;
}

export interface StoredPage {
  readonly events: readonly LoggedEvent[];
  /** Every visible event of the range up to this number is in `events`. */
  readonly endSeq: number;
  /** Whether more events may follow after `endSeq`. If not, `endSeq` is the end of the range. */
  readonly hasMore: boolean;
  /** See `TopicsBySeq`; undefined if there are no such events. */
  readonly topicsBySeq: TopicsBySeq | undefined;
  /** Every entry up to this sequence number had been trimmed when the page was read. */
  readonly trimmedSeq: number;
}

/** The entries of a range up to `upTo`, without those that have been trimmed. */
export interface LoggedRange {
  readonly entries: readonly LogEntry[];
  readonly upTo: number;
}

/** Limits of one trim batch. */
export interface TrimBatchLimits {
  readonly entriesMax: number;
  readonly recipientsMax: number;
}

/** One of the oldest stored entries. */
export interface TrimCandidate {
  readonly seq: number;
  readonly isControlEntry: boolean;
  readonly createdAt: number;
  /** Size of the event, see `getStoredBytes`. */
  readonly bytes: number;
}

/** The entries that a trim deletes: the oldest ones, above `after`, up to and including `upTo`. */
export interface TrimRange {
  /** The sequence number at which the last trim ended. */
  readonly after: number;
  readonly upTo: number;
  /** Number of events in the range, without control entries. */
  readonly eventCount: number;
  /** Size of the events in the range, see `getStoredBytes`. */
  readonly bytes: number;
  /** The current time, epoch ms. Deleting an event that has expired does not count as a loss for its audiences. */
  readonly now: number;
}

/** Stores the event log. Only the folder `sql` depends on how it is stored. */
export interface LogStore {
  /**
   * Whether other server processes may append, so that the event log has to be polled often. If not,
   * the only other writers are commands, which append only control entries.
   */
  readonly isShared: boolean;
  /** Reads the state. Rejects with `service_unavailable` once the stored event log has been replaced. */
  readState(): Promise<LogState>;
  /**
   * Appends in one transaction. The events are durable when the promise resolves. Transactions commit
   * in the order of sequence numbers.
   */
  append(requests: readonly AppendRequest[]): Promise<readonly AppendOutcome[]>;
  /** Reads the head, and whether the API key may publish, in one snapshot. */
  readPublishSnapshot(publisher: Publisher | undefined): Promise<PublishSnapshot>;
  /** Reads the next events for a reader in a range, once each and in sequence order. */
  read(reader: Reader, range: SeqRange, limits: PageLimits): Promise<StoredPage>;
  /**
   * Reads the first entries of a range in sequence order, and the audiences of each event. The result ends with
   * the entry at which the total size reaches `bytesMax`, or at the end of the range. The size of an event is that of
   * `getStoredBytes`, the size of a control entry is that of its text. `upTo` is the sequence number at which it ends.
   */
  readAll(range: SeqRange, bytesMax: number): Promise<LoggedRange>;
  /**
   * Returns the sequence number of the newest trimmed event above `after` that the reader would have received;
   * 0 if there is none. The result may be too high, so that a client gets `too_old` although it lost no event,
   * but never too low.
   */
  findLastTrimmedSeq(reader: Reader, after: number): Promise<number>;
  /** Reads the first entries after a sequence number: as many as the limits allow, at least one. */
  readOldestEntries(after: number, limits: TrimBatchLimits): Promise<TrimCandidate[]>;
  /**
   * Deletes a range and returns the number of deleted rows. Deletes nothing when another process has
   * trimmed beyond `after` meanwhile. While a trim waits for locked rows, no append waits for the trim.
   */
  trim(range: TrimRange): Promise<number>;
  /** Deletes a batch of expired idempotency keys and returns their number. Called by a timer. */
  sweepIdempotencyKeys(now: number): Promise<number>;
  /**
   * Calls `onAppended` after other processes have appended, and whenever a notification may have
   * been missed. Returns undefined when the engine cannot notify and has to be polled. Never
   * throws.
   */
  listen(onAppended: () => void): Subscription | undefined;
}
