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

interface OwnedJob {
  readonly owner: string | undefined;
}

/** The weight of the newest job in the mean service time. */
const newestWeight = 0.2;

/**
 * The books of one lane: who waits, first come first served, who may join them, and how much is
 * under way on which thread. A thread is only a name here.
 */
export class LaneQueue<Job extends OwnedJob> {
  readonly #limits: Lane<unknown>;
  readonly #waiting = new Set<Job>(); // In order of arrival, and any may leave at once.
  readonly #waitingByOwner = new Map<string, number>();
  readonly #runningByThread = new Map<object, number>();
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
  getRefusal({ owner }: OwnedJob, threads: number): string | undefined {
    const { queueMax, waitMaxMs, perOwnerMax = queueMax } = this.#limits;
    if (this.#waiting.size >= queueMax) return 'the queue is full';
    if (this.estimatedWaitMs(threads) > waitMaxMs) return 'the wait would be too long';
    if (owner !== undefined && (this.#waitingByOwner.get(owner) ?? 0) >= perOwnerMax) {
      return 'too many jobs of this client are queued';
    }
    return undefined;
  }

  enqueue(job: Job): void {
    this.#waiting.add(job);
    adjustCount(this.#waitingByOwner, job.owner, 1);
  }

  remove(job: Job): void {
    if (this.#waiting.delete(job)) adjustCount(this.#waitingByOwner, job.owner, -1);
  }

  /** The job that has waited longest; it waits no more. */
  dequeue(): Job | undefined {
    for (const job of this.#waiting) {
      this.remove(job);
      return job;
    }
    return undefined;
  }

  hasRoomOn(thread: object): boolean {
    return (this.#runningByThread.get(thread) ?? 0) < this.#limits.perThread;
  }

  markStarted(thread: object): void {
    this.#running += 1;
    adjustCount(this.#runningByThread, thread, 1);
  }

  /** `serviceMs` is the time from start to answer; undefined when there was no answer. */
  markEnded(thread: object, serviceMs?: number): void {
    this.#running -= 1;
    adjustCount(this.#runningByThread, thread, -1);
    if (serviceMs === undefined) return;
    const before = this.#serviceMs ?? serviceMs;
    this.#serviceMs = before + (Math.max(0, serviceMs) - before) * newestWeight;
  }
}

/** Counts by key; what is down to 0 is forgotten, so a map never outgrows what is going on. */
function adjustCount<Key>(counts: Map<Key, number>, key: Key | undefined, by: number): void {
  if (key === undefined) return;
  const count = (counts.get(key) ?? 0) + by;
  if (count === 0) counts.delete(key);
  else counts.set(key, count);
}
