/**
 * A group of jobs that share limits. Lanes are independent: a thread that is busy in one lane still
 * takes jobs of another.
 */
export interface Lane<Name> {
  readonly jobs: readonly Name[];
  /** Maximum number of concurrent jobs per thread. */
  readonly perThreadMax: number;
  /** Maximum number of queued jobs. */
  readonly queueMax: number;
  /** A job whose estimated wait is longer than this is refused. */
  readonly waitMaxMs: number;
  /** Maximum number of queued jobs per owner. Default: `queueMax`. */
  readonly perOwnerMax?: number;
}

interface OwnedJob {
  readonly owner: string | undefined;
}

/** Weight of the newest job in the moving average of the service time. */
const newestWeight = 0.2;

/**
 * The queue and counters of one lane: FIFO order, admission, running jobs per thread. Threads are only
 * used as keys.
 */
export class LaneQueue<Job extends OwnedJob> {
  readonly #limits: Lane<unknown>;
  readonly #waiting = new Set<Job>(); // A set: FIFO, and any job can be removed in O(1).
  readonly #waitingByOwner = new Map<string, number>();
  readonly #runningByThread = new Map<object, number>();
  #running = 0;
  /** Moving average of the time from start to result; undefined until the first job has completed. */
  #serviceMs: number | undefined;

  constructor(limits: Lane<unknown>) {
    this.#limits = limits;
  }

  get queued(): number {
    return this.#waiting.size;
  }

  /** Number of running jobs on all threads. */
  get running(): number {
    return this.#running;
  }

  /**
   * Estimated wait in ms of one more job. 0 while the queue is empty, and until the first job has
   * completed.
   */
  estimatedWaitMs(threads: number): number {
    const slots = Math.max(1, threads) * this.#limits.perThreadMax;
    return (this.#waiting.size / slots) * (this.#serviceMs ?? 0);
  }

  /** Returns why a job cannot be queued; undefined when it can. */
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

  /** Removes and returns the oldest queued job. */
  dequeue(): Job | undefined {
    for (const job of this.#waiting) {
      this.remove(job);
      return job;
    }
    return undefined;
  }

  hasRoomOn(thread: object): boolean {
    return (this.#runningByThread.get(thread) ?? 0) < this.#limits.perThreadMax;
  }

  markStarted(thread: object): void {
    this.#running += 1;
    adjustCount(this.#runningByThread, thread, 1);
  }

  /**
   * Counts a job as ended. `serviceMs` is the time from start to result; undefined when there was no
   * result.
   */
  markEnded(thread: object, serviceMs?: number): void {
    this.#running -= 1;
    adjustCount(this.#runningByThread, thread, -1);
    if (serviceMs === undefined) return;
    const averageMs = this.#serviceMs ?? serviceMs;
    this.#serviceMs = averageMs + (Math.max(0, serviceMs) - averageMs) * newestWeight;
  }
}

/** Adds to the count of a key and deletes counts of 0, so that the map cannot grow without bound. */
function adjustCount<Key>(counts: Map<Key, number>, key: Key | undefined, by: number): void {
  if (key === undefined) return;
  const count = (counts.get(key) ?? 0) + by;
  if (count === 0) counts.delete(key);
  else counts.set(key, count);
}
