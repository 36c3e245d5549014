import type {
  AppendOutcome,
  AppendRequest,
  LogEntry,
  LoggedEvent,
  LoggedRange,
  LogState,
  LogStore,
  PageLimits,
  PublishSnapshot,
  SeqRange,
  StoredPage,
  TrimCandidate,
  TrimRange,
} from '../../../src/event-log/log-store.js';
import { type ControlEntry, formatControlEntry } from '../../../src/events/control-entry.js';
import { findTopics, type Reader } from '../../../src/events/topic.js';

interface PendingStep {
  run(): void;
}

/**
 * An event log in memory whose steps a test controls: the test decides in which order reads and appends happen,
 * and when their results arrive. The event log survives a simulated crash of the process that uses it.
 */
export class MemoryLogStore implements LogStore {
  readonly isShared = false;
  readonly entries: LogEntry[] = [];
  readonly epoch: string;
  trimmedSeq = 0;
  /** Number of events of each transaction. */
  readonly commits: number[] = [];
  /** While set, `read` rejects with this error. */
  readError: Error | undefined;
  #pending: PendingStep[] = [];
  #isHeld = true;

  constructor(epoch: string) {
    this.epoch = epoch;
  }

  /** Appends an event as another process does. */
  appendExternally(audiences: readonly string[], data: string): void {
    const seq = this.entries.length + 1;
    this.entries.push({ seq, audiences, type: undefined, data, expiresAt: undefined });
  }

  /** Appends a control entry, also one of a kind that only a newer version knows. */
  appendControlEntry(entry: ControlEntry | { readonly kind: 'invented_later' }): void {
    this.appendControlText(formatControlEntry(entry as ControlEntry));
  }

  /** Appends the text of a control entry, also one that cannot be parsed. */
  appendControlText(control: string): void {
    this.entries.push({ seq: this.entries.length + 1, control });
  }

  /** Runs one pending step, which `choice` selects. Does nothing when no step is pending. */
  step(choice: number): void {
    const [next] = this.#pending.splice(choice % Math.max(1, this.#pending.length), 1);
    next?.run();
  }

  /** Runs all pending steps, and later operations at once. */
  release(): void {
    this.#isHeld = false;
    while (this.#pending.length > 0) this.step(0);
  }

  hold(): void {
    this.#isHeld = true;
  }

  /** Simulates a crash of the process: pending operations never settle. */
  dropPending(): void {
    this.#pending = [];
  }

  readState(): Promise<LogState> {
    return this.#defer(() => this.#state);
  }

  readPublishSnapshot(): Promise<PublishSnapshot> {
    return this.#defer(() => ({ seq: this.entries.length, refusal: undefined }));
  }

  append(requests: readonly AppendRequest[]): Promise<readonly AppendOutcome[]> {
    return this.#defer(() => {
      this.commits.push(requests.reduce((sum, { events }) => sum + events.length, 0));
      return requests.map(({ events }) => {
        const firstSeq = this.entries.length + 1;
        const added = events.map((event, index) => ({ seq: firstSeq + index, event }));
        for (const { event, seq } of added) this.entries.push({ ...event, seq });
        return { kind: 'appended', seqs: added.map(({ seq }) => seq), added };
      });
    });
  }

  read(
    reader: Reader,
    { after, upTo }: SeqRange,
    { eventsMax, bytesMax }: PageLimits,
  ): Promise<StoredPage> {
    if (this.readError !== undefined) return Promise.reject(this.readError);
    return this.#defer(() => {
      const visible = this.entries
        .filter(({ seq }) => seq > Math.max(after, this.trimmedSeq) && seq <= upTo)
        .filter((entry) => isFor(entry, reader));
      let bytesBefore = 0;
      const events = visible.slice(0, eventsMax).filter(({ data }) => {
        const fits = bytesBefore < bytesMax;
        bytesBefore += Buffer.byteLength(data);
        return fits;
      });
      const hasMore = events.length < visible.length;
      const endSeq = hasMore ? (events.at(-1)?.seq ?? upTo) : upTo;
      const { trimmedSeq } = this;
      return { events, endSeq, hasMore, trimmedSeq, topicsBySeq: findTopicsBySeq(events, reader) };
    });
  }

  readAll({ after, upTo }: SeqRange): Promise<LoggedRange> {
    return this.#defer(() => {
      return { entries: this.entries.slice(Math.max(after, this.trimmedSeq), upTo), upTo };
    });
  }

  findLastTrimmedSeq(reader: Reader, after: number): Promise<number> {
    return this.#defer(
      () =>
        this.entries.slice(after, this.trimmedSeq).findLast((entry) => isFor(entry, reader))?.seq ??
        0,
    );
  }

  readOldestEntries(): Promise<TrimCandidate[]> {
    return this.#defer(() => []);
  }

  trim({ after, upTo }: TrimRange): Promise<number> {
    return this.#defer(() => {
      if (this.trimmedSeq !== after) return 0;
      this.trimmedSeq = upTo;
      return upTo - after;
    });
  }

  sweepIdempotencyKeys(): Promise<number> {
    return Promise.resolve(0);
  }

  listen(): undefined {
    return undefined; // `appendExternally` notifies no one.
  }

  get #state(): LogState {
    const { epoch, trimmedSeq } = this;
    const eventCount = this.entries.filter((entry) => !('control' in entry)).length;
    return { epoch, seq: this.entries.length, trimmedSeq, eventCount, bytes: 0 };
  }

  /** Splits an operation into two steps: the first runs it, and the second settles its promise. */
  #defer<Result>(operate: () => Result): Promise<Result> {
    if (!this.#isHeld) return Promise.resolve(operate());
    return new Promise((resolve) => {
      const perform = () => {
        const result = operate();
        this.#pending.push({ run: () => resolve(result) });
      };
      this.#pending.push({ run: perform });
    });
  }
}

function isFor(entry: LogEntry, { audiences, topics }: Reader): entry is LoggedEvent {
  if ('control' in entry) return false;
  const isForFixed = entry.audiences.some((audience) => audiences.includes(audience));
  return isForFixed || findTopics(entry.audiences, topics, entry.seq).length > 0;
}

function findTopicsBySeq(events: readonly LoggedEvent[], { audiences, topics }: Reader) {
  const onlyOfTopics = events.filter(
    (event) => !event.audiences.some((audience) => audiences.includes(audience)),
  );
  if (onlyOfTopics.length === 0) return undefined;
  return new Map(
    onlyOfTopics.map((event) => [event.seq, findTopics(event.audiences, topics, event.seq)]),
  );
}
