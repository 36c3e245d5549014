import type {
  AppendOutcome,
  AppendRequest,
  LoggedEvent,
  LogState,
  LogStore,
  OldEvent,
  PageLimits,
  StateFor,
  StoredPage,
  Trimming,
} from '../../../src/event-log/log-store.js';

interface Waiting {
  run(): void;
}

/**
 * A log in memory whose every answer waits until it is let through: the test decides in which order
 * reads and appends happen, and when their results arrive. It outlives the process that uses it.
 */
export class MemoryLog implements LogStore {
  readonly isShared = false;
  readonly events: LoggedEvent[] = [];
  readonly epoch: string;
  trimmedSeq = 0;
  /** How many events each transaction took. */
  readonly commits: number[] = [];
  /** While set, reads fail with it. */
  trouble: Error | undefined;
  #waiting: Waiting[] = [];
  #gated = true;

  constructor(epoch: string) {
    this.epoch = epoch;
  }

  /** An event that somebody else has written. */
  write(audiences: readonly string[], data: string): void {
    const seq = this.events.length + 1;
    this.events.push({ seq, audiences, type: undefined, data, expiresAt: undefined });
  }

  /** Lets one step of one operation through. */
  step(choice: number): void {
    const [next] = this.#waiting.splice(choice % Math.max(1, this.#waiting.length), 1);
    next?.run();
  }

  /** From here on nothing waits. */
  openGates(): void {
    this.#gated = false;
    while (this.#waiting.length > 0) this.step(0);
  }

  closeGates(): void {
    this.#gated = true;
  }

  /** The process is gone: what was under way is never answered. */
  forget(): void {
    this.#waiting = [];
  }

  state(): Promise<LogState> {
    return this.#gate(() => this.#state);
  }

  stateFor(audiences: readonly string[], seq: number): Promise<StateFor> {
    return this.#gate(() => {
      const event = seq > this.trimmedSeq ? this.events[seq - 1] : undefined;
      const isVisible = event?.audiences.some((word) => audiences.includes(word)) ?? false;
      return { ...this.#state, isVisible };
    });
  }

  append(requests: readonly AppendRequest[]): Promise<readonly AppendOutcome[]> {
    return this.#gate(() => {
      this.commits.push(requests.reduce((sum, { events }) => sum + events.length, 0));
      return requests.map((request) => {
        const firstSeq = this.events.length + 1;
        for (const event of request.events) {
          this.events.push({ ...event, seq: this.events.length + 1 });
        }
        return { kind: 'appended', firstSeq };
      });
    });
  }

  read(
    audiences: readonly string[],
    after: number,
    { eventsMax, bytesMax }: PageLimits,
  ): Promise<StoredPage> {
    if (this.trouble !== undefined) return Promise.reject(this.trouble);
    return this.#gate(() => {
      const visible = this.events
        .filter((event) => event.seq > Math.max(after, this.trimmedSeq))
        .filter((event) => event.audiences.some((word) => audiences.includes(word)));
      let bytesBefore = 0;
      const events = visible.slice(0, eventsMax).filter(({ data }) => {
        const isIn = bytesBefore < bytesMax;
        bytesBefore += Buffer.byteLength(data);
        return isIn;
      });
      return { events, more: events.length < visible.length };
    });
  }

  readAll(after: number, upTo: number): Promise<LoggedEvent[]> {
    return this.#gate(() => this.events.slice(Math.max(after, this.trimmedSeq), upTo));
  }

  lastVisible(audiences: readonly string[], upTo: number): Promise<number | undefined> {
    return this.#gate(
      () =>
        this.events
          .slice(this.trimmedSeq, upTo)
          .findLast((event) => event.audiences.some((word) => audiences.includes(word)))?.seq,
    );
  }

  lastTrimmed(audiences: readonly string[]): Promise<number> {
    return this.#gate(
      () =>
        this.events
          .slice(0, this.trimmedSeq)
          .findLast((event) => event.audiences.some((word) => audiences.includes(word)))?.seq ?? 0,
    );
  }

  oldest(): Promise<OldEvent[]> {
    return this.#gate(() => []);
  }

  trim({ after, upTo }: Trimming): Promise<number> {
    return this.#gate(() => {
      if (this.trimmedSeq !== after) return 0;
      this.trimmedSeq = upTo;
      return upTo - after;
    });
  }

  sweepIdempotencyKeys(): Promise<number> {
    return Promise.resolve(0);
  }

  listen(): undefined {
    return undefined; // Nobody else writes, but for `write`.
  }

  get #state(): LogState {
    const { epoch, trimmedSeq } = this;
    return { epoch, seq: this.events.length, trimmedSeq, bytes: 0 };
  }

  /** Two steps: the operation happens, and later its answer arrives. */
  #gate<Result>(operate: () => Result): Promise<Result> {
    if (!this.#gated) return Promise.resolve(operate());
    return new Promise((resolve) => {
      const happen = () => {
        const result = operate();
        this.#waiting.push({ run: () => resolve(result) });
      };
      this.#waiting.push({ run: happen });
    });
  }
}
