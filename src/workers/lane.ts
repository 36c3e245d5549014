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
  /** A job is refused when its estimated wait is longer than this, or when it has waited this long. */
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
 * The queue and counters of one lane: order, admission, running jobs per thread. Owners take turns, so an
 * owner with many jobs delays the others by one job per turn; the jobs of an owner are FIFO. All jobs without
 * an owner count as jobs of one owner. Threads are only used as keys.
 */
export class LaneQueue<Job extends OwnedJob> {
  readonly #limits: Lane<unknown>;
  /** In the order of turns. Jobs are in sets, so that any job can be removed in O(1). No set is empty. */
  readonly #queuedByOwner = new Map<string | undefined, Set<Job>>();
  #queued = 0;
  readonly #runningByThread = new Map<object, number>();
  #running = 0;
  /** Moving average of the time from start to result; undefined until the first job has completed. */
  #serviceMs: number | undefined;

  constructor(limits: Lane<unknown>) {
    this.#limits = limits;
  }

  get queued(): number {
    return this.#queued;
  }

  /** Number of running jobs on all threads. */
  get running(): number {
    return this.#running;
  }

  get waitMaxMs(): number {
    return this.#limits.waitMaxMs;
  }

  /**
   * Estimates the time in ms until all queued jobs have started. 0 while the queue is empty, and until the first
   * job has completed.
   */
  estimatedWaitMs(threads: number): number {
    return this.#estimateMs(this.#queued, threads);
  }

  /**
   * Returns the reason why a job cannot be queued; undefined when it can. A full queue accepts the job if another
   * owner has more jobs than the owner of this job would have: `makeRoom` then removes a job of that owner.
   */
  getRefusal({ owner }: OwnedJob, threads: number): string | undefined {
    const { queueMax, waitMaxMs, perOwnerMax = queueMax } = this.#limits;
    if (this.#queued >= queueMax && !this.#hasOwnerWithMoreJobs(owner)) return 'the queue is full';
    if (this.#estimateMs(this.#countAhead(owner), threads) > waitMaxMs)
      return 'the wait would be too long';
    if (owner !== undefined && this.#countOf(owner) >= perOwnerMax)
      return 'too many jobs of this client are queued';
    return undefined;
  }

  /** Removes and returns the newest job of the owner with the most jobs, if the queue is full. */
  makeRoom(): Job | undefined {
    if (this.#queued < this.#limits.queueMax) return undefined;
    const newest = [...this.#getLongestQueue()].at(-1);
    if (newest !== undefined) this.remove(newest);
    return newest;
  }

  enqueue(job: Job): void {
    const jobs = this.#queuedByOwner.get(job.owner);
    if (jobs === undefined) this.#queuedByOwner.set(job.owner, new Set([job]));
    else jobs.add(job);
    this.#queued += 1;
  }

  remove(job: Job): void {
    const jobs = this.#queuedByOwner.get(job.owner);
    if (jobs?.delete(job) !== true) return;
    this.#queued -= 1;
    if (jobs.size === 0) this.#queuedByOwner.delete(job.owner);
  }

  /** Removes and returns the oldest queued job of the owner whose turn it is. */
  dequeue(): Job | undefined {
    for (const [owner, jobs] of this.#queuedByOwner) {
      this.#queuedByOwner.delete(owner);
      this.#queuedByOwner.set(owner, jobs); // The owner is now the last in turn.
      for (const job of jobs) {
        this.remove(job);
        return job;
      }
    }
    return undefined;
  }

  hasRoomOn(thread: object): boolean {
    return (this.#runningByThread.get(thread) ?? 0) < this.#limits.perThreadMax;
  }

  markStarted(thread: object): void {
    this.#running += 1;
    this.#adjustRunning(thread, 1);
  }

  /**
   * Counts a job as ended. `serviceMs` is the time from start to result; undefined when there was no
   * result.
   */
  markEnded(thread: object, serviceMs?: number): void {
    this.#running -= 1;
    this.#adjustRunning(thread, -1);
    if (serviceMs === undefined) return;
    const averageMs = this.#serviceMs ?? serviceMs;
    this.#serviceMs = averageMs + (Math.max(0, serviceMs) - averageMs) * newestWeight;
  }

  #countOf(owner: string | undefined): number {
    return this.#queuedByOwner.get(owner)?.size ?? 0;
  }

  #hasOwnerWithMoreJobs(owner: string | undefined): boolean {
    return this.#getLongestQueue().size > this.#countOf(owner) + 1;
  }

  #getLongestQueue(): ReadonlySet<Job> {
    let largest: ReadonlySet<Job> = new Set();
    for (const jobs of this.#queuedByOwner.values()) if (jobs.size > largest.size) largest = jobs;
    return largest;
  }

  /** Returns how many queued jobs would start before the next job of this owner. */
  #countAhead(owner: string | undefined): number {
    const own = this.#countOf(owner);
    let ahead = 0;
    for (const jobs of this.#queuedByOwner.values()) ahead += Math.min(jobs.size, own + 1);
    return ahead;
  }

  #estimateMs(jobs: number, threads: number): number {
    const slots = Math.max(1, threads) * this.#limits.perThreadMax;
    return (jobs / slots) * (this.#serviceMs ?? 0);
  }

  /** Deletes counts of 0, so that lost threads do not stay in the map. */
  #adjustRunning(thread: object, by: number): void {
    const count = (this.#runningByThread.get(thread) ?? 0) + by;
    if (count === 0) this.#runningByThread.delete(thread);
    else this.#runningByThread.set(thread, count);
  }
}
