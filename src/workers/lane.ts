/**
 * Jobs that share limits. Lanes do not wait for one another: a thread that is busy in one lane
 * still takes jobs of another.
 */
export interface Lane<Name> {
  readonly jobs: readonly Name[];
  /** Started at the same time on one thread, at most. */
  readonly perThread: number;
  /** Waiting for a thread, at most. */
  readonly queueMax: number;
  /** A job that would wait longer than this, by estimate, is refused. */
  readonly waitMaxMs: number;
  /** Waiting for one owner, at most. Default: no limit but `queueMax`. */
  readonly perOwnerMax?: number;
}

interface Waiting {
  readonly owner: string | undefined;
}

/** The weight of the newest job in the mean service time. */
const newestWeight = 0.2;

/**
 * The books of one lane: who waits, first come first served, who may join them, and how much is
 * under way on which thread. A thread is only a name here.
 */
export class LaneQueue<Job extends Waiting> {
  readonly #limits: Lane<unknown>;
  readonly #waiting = new Set<Job>(); // In order of arrival, and any may leave at once.
  readonly #waitingOf = new Map<string, number>();
  readonly #runningOn = new Map<object, number>();
  #running = 0;
  #serviceMs: number | undefined;

  constructor(limits: Lane<unknown>) {
    this.#limits = limits;
  }

  get queued(): number {
    return this.#waiting.size;
  }

  /** Started and not yet answered, on all threads. */
  get running(): number {
    return this.#running;
  }

  /** How long one more job would wait. 0 while nothing waits, and until a job has been done. */
  estimatedWaitMs(threads: number): number {
    const slots = Math.max(1, threads) * this.#limits.perThread;
    return (this.#waiting.size / slots) * (this.#serviceMs ?? 0);
  }

  /** Why one more may not wait; undefined when it may. */
  refusalFor({ owner }: Waiting, threads: number): string | undefined {
    const { queueMax, waitMaxMs, perOwnerMax = queueMax } = this.#limits;
    if (this.#waiting.size >= queueMax) return 'too many are waiting';
    if (this.estimatedWaitMs(threads) > waitMaxMs) return 'the wait would be too long';
    if (owner !== undefined && (this.#waitingOf.get(owner) ?? 0) >= perOwnerMax) {
      return 'too many are waiting for the same client';
    }
    return undefined;
  }

  add(job: Job): void {
    this.#waiting.add(job);
    change(this.#waitingOf, job.owner, 1);
  }

  remove(job: Job): void {
    if (this.#waiting.delete(job)) change(this.#waitingOf, job.owner, -1);
  }

  /** The job that has waited longest; it waits no more. */
  take(): Job | undefined {
    for (const job of this.#waiting) {
      this.remove(job);
      return job;
    }
    return undefined;
  }

  hasRoomOn(thread: object): boolean {
    return (this.#runningOn.get(thread) ?? 0) < this.#limits.perThread;
  }

  started(thread: object): void {
    this.#running += 1;
    change(this.#runningOn, thread, 1);
  }

  /** `serviceMs` is the time from start to answer; undefined when there was no answer. */
  ended(thread: object, serviceMs?: number): void {
    this.#running -= 1;
    change(this.#runningOn, thread, -1);
    if (serviceMs === undefined) return;
    const before = this.#serviceMs ?? serviceMs;
    this.#serviceMs = before + (Math.max(0, serviceMs) - before) * newestWeight;
  }
}

/** Counts by key; what is down to 0 is forgotten, so a map never outgrows what is going on. */
function change<Key>(counts: Map<Key, number>, key: Key | undefined, by: number): void {
  if (key === undefined) return;
  const count = (counts.get(key) ?? 0) + by;
  if (count === 0) counts.delete(key);
  else counts.set(key, count);
}
