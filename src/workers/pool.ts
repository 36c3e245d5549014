import { Failure } from '../errors.js';
import type { Logger } from '../logging/logger.js';
import type { Job } from './job.js';
import { type Lane, LaneQueue } from './lane.js';
import { getPoolState, type PoolState } from './pool-state.js';
import type { PoolThread } from './pool-thread.js';
import type { JobResult, JobTable } from './thread.js';
import { WorkerSupervisor } from './worker-supervisor.js';

export interface PoolOptions<Jobs extends JobTable> {
  /** The entry module of the threads, without its extension. It calls `serveJobs`. See `startThread`. */
  readonly entry: URL;
  readonly threads: number;
  /** Lanes by name; every job is in exactly one lane. */
  readonly lanes: Readonly<Record<string, Lane<keyof Jobs & string>>>;
  /** Cloned to every thread; a `KeyObject` is passed as a handle. */
  readonly workerData?: unknown;
  readonly log: Logger;
  /** Returns milliseconds, of which only differences matter. Default: `performance.now`. */
  readonly monotonicClock?: (() => number) | undefined;
  /**
   * Delay before a crashed thread is replaced. It doubles with each crash in the last minute, up to 10 s.
   * Default: 100.
   */
  readonly backOffMs?: number;
  /**
   * A thread counts as lost and is replaced when a job has run on it for this long, or up to twice as long.
   * Must be longer than any job takes. Default: 30,000.
   */
  readonly jobMsMax?: number;
}

export interface RunOptions {
  /** Removes the job from the queue when it aborts. A started job runs to completion. */
  readonly signal?: AbortSignal | undefined;
  /** The IP key or /48 of the client. Owners take turns, and `perOwnerMax` limits the queued jobs of each. */
  readonly owner?: string | undefined;
}

type JobInput<Job> = Job extends (input: infer Input) => unknown ? Input : never;
type JobOutput<Job extends (input: never) => unknown> = Awaited<ReturnType<Job>>;

/**
 * Runs typed jobs on a fixed number of worker threads, behind bounded queues.
 *
 * A job starts at once when its lane has room on a thread. Otherwise it is queued in its lane, or
 * refused when the queue is full or the estimated wait is too long. The running jobs of a thread that
 * crashes or hangs are rejected, never retried, because they may be the cause. The thread is replaced
 * after a delay; queued jobs stay queued until they have waited for `waitMaxMs`.
 */
export class Pool<Jobs extends JobTable> {
  readonly #monotonicClock: () => number;
  readonly #lanes: ReadonlyMap<string, LaneQueue<Job>>;
  readonly #laneByJob = new Map<string, LaneQueue<Job>>();
  #supervisor: WorkerSupervisor<Job> | undefined; // Undefined until all threads are ready, and after close.
  #lastId = 0;
  #closing: Promise<void> | undefined;

  private constructor({ lanes, monotonicClock = () => performance.now() }: PoolOptions<Jobs>) {
    this.#monotonicClock = monotonicClock;
    const queues = Object.entries(lanes).map(([name, lane]) => {
      const queue = new LaneQueue<Job>(lane);
      for (const job of lane.jobs) {
        if (this.#laneByJob.has(job)) throw new Error(`Cannot open pool: ${job} is in two lanes`);
        this.#laneByJob.set(job, queue);
      }
      return [name, queue] as const;
    });
    this.#lanes = new Map(queues);
  }

  /** Resolves when every thread is ready. Rejects when one cannot load, after all others have exited. */
  static async open<Jobs extends JobTable>(options: PoolOptions<Jobs>): Promise<Pool<Jobs>> {
    const pool = new Pool<Jobs>(options);
    const { entry, threads, workerData, log, backOffMs = 100, jobMsMax = 30_000 } = options;
    pool.#supervisor = await WorkerSupervisor.open<Job>({
      ...{ entry, threads, workerData, log, backOffMs, jobMsMax },
      monotonicClock: pool.#monotonicClock,
      onReady: (thread) => pool.#startAllQueued(thread),
      onResult: (thread, result) => pool.#handleResult(thread, result),
      onLost: (thread, cause) => pool.#handleLoss(thread, cause),
      onExhausted: () => pool.#refuseQueued('no thread is running'),
    });
    return pool;
  }

  get state(): PoolState {
    return getPoolState(this.#lanes, this.#supervisor, this.#monotonicClock());
  }

  /**
   * Runs a job and resolves with its return value.
   *
   * Rejects with the Failure `service_unavailable`, with the estimated wait as `Retry-After`, when the
   * job cannot be queued, when its thread exits, or when the pool is closed. Rejects with the reason of
   * `signal` when `signal` aborts before the job starts. When the job throws, rejects with an Error whose
   * `cause` is the thrown value.
   */
  run<Name extends keyof Jobs & string>(
    name: Name,
    input: JobInput<Jobs[Name]>,
    { signal, owner }: RunOptions = {},
  ): Promise<JobOutput<Jobs[Name]>> {
    const result = new Promise<unknown>((resolve, reject) => {
      const lane = this.#laneByJob.get(name);
      if (lane === undefined) throw new Error(`Cannot run job ${name}: it is in no lane`);
      signal?.throwIfAborted();
      this.#lastId += 1;
      const job = { id: this.#lastId, name, input, lane, owner, resolve, reject };
      this.#startOrQueue({ ...job, stopWaiting() {}, startedAt: 0 }, signal);
    });
    return result as Promise<JobOutput<Jobs[Name]>>; // Safe: the threads serve the table `Jobs`.
  }

  /**
   * Rejects new and queued jobs, waits for running ones, then stops the threads. Settles when all have
   * exited. Idempotent; never rejects.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const supervisor = this.#supervisor;
    this.#supervisor = undefined;
    this.#refuseQueued('the server is stopping');
    await supervisor?.close();
  }

  /** Starts or queues a job, or throws `service_unavailable`. */
  #startOrQueue(job: Job, signal: AbortSignal | undefined): void {
    const { lane } = job;
    const supervisor = this.#supervisor;
    if (supervisor === undefined) throw this.#unavailable(lane, 'the server is stopping');
    const thread = lane.queued === 0 ? findLeastBusy(supervisor.ready, lane) : undefined;
    if (thread !== undefined) {
      this.#start(thread, job);
      return;
    }
    if (supervisor.isExhausted) throw this.#unavailable(lane, 'no thread is running');
    const refusal = lane.getRefusal(job, supervisor.ready.size);
    if (refusal !== undefined) throw this.#unavailable(lane, refusal);
    const removed = lane.makeRoom();
    removed?.stopWaiting();
    removed?.reject(this.#unavailable(lane, 'the queue is full'));
    this.#enqueue(job, signal);
  }

  /** Queues a job until it starts, `signal` aborts, or it has waited for too long. */
  #enqueue(job: Job, signal: AbortSignal | undefined): void {
    const { lane } = job;
    const leave = (cause: unknown) => {
      lane.remove(job);
      job.stopWaiting();
      job.reject(cause);
    };
    const onAbort = () => leave(signal?.reason);
    const onTimeout = () => leave(this.#unavailable(lane, 'the wait was too long'));
    const timer = setTimeout(onTimeout, lane.waitMaxMs);
    signal?.addEventListener('abort', onAbort, { once: true });
    job.stopWaiting = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
    };
    lane.enqueue(job);
  }

  #start(thread: PoolThread<Job>, job: Job): void {
    const { id, name, input, lane } = job;
    job.startedAt = this.#monotonicClock();
    try {
      thread.start(job, { id, name, input });
      lane.markStarted(thread);
    } catch (cause) {
      job.reject(new Error(`Cannot run job ${name}: its input cannot be sent`, { cause }));
    }
  }

  #handleResult(thread: PoolThread<Job>, result: JobResult): void {
    const job = thread.finish(result.id);
    if (job === undefined) return;
    job.lane.markEnded(thread, this.#monotonicClock() - job.startedAt);
    if (result.kind === 'returned') job.resolve(result.value);
    else job.reject(new Error(`Cannot run job ${job.name}: it failed`, { cause: result.thrown }));
    this.#startQueued(thread, job.lane);
  }

  #handleLoss(thread: PoolThread<Job>, cause: unknown): void {
    for (const job of thread.abandon()) {
      job.lane.markEnded(thread);
      job.reject(this.#unavailable(job.lane, 'its worker thread failed', cause));
    }
  }

  #startAllQueued(thread: PoolThread<Job>): void {
    for (const lane of this.#lanes.values()) this.#startQueued(thread, lane);
  }

  /** Starts queued jobs of a lane while the thread has room for them. */
  #startQueued(thread: PoolThread<Job>, lane: LaneQueue<Job>): void {
    while (!thread.isEnding && lane.hasRoomOn(thread)) {
      const job = lane.dequeue();
      if (job === undefined) return;
      job.stopWaiting();
      this.#start(thread, job);
    }
  }

  #refuseQueued(reason: string): void {
    for (const lane of this.#lanes.values()) {
      for (let job = lane.dequeue(); job !== undefined; job = lane.dequeue()) {
        job.stopWaiting();
        job.reject(this.#unavailable(lane, reason));
      }
    }
  }

  #unavailable(lane: LaneQueue<Job>, reason: string, cause?: unknown): Failure {
    const retryAfterMs = lane.estimatedWaitMs(this.#supervisor?.ready.size ?? 0);
    return new Failure('service_unavailable', `Cannot answer now: ${reason}`, {
      retryAfterMs,
      cause,
    });
  }
}

/** Returns the thread with the fewest jobs that has room in a lane; undefined when none has. */
function findLeastBusy(
  threads: ReadonlySet<PoolThread<Job>>,
  lane: LaneQueue<Job>,
): PoolThread<Job> | undefined {
  let best: PoolThread<Job> | undefined;
  for (const thread of threads) {
    const isLessBusy = best === undefined || thread.running.size < best.running.size;
    if (isLessBusy && !thread.isEnding && lane.hasRoomOn(thread)) best = thread;
  }
  return best;
}
