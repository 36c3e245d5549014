import type { Worker } from 'node:worker_threads';
import { startThread } from '../util/start-thread.js';
import type { JobRequest, JobResult, MessageFromThread, MessageToThread } from './thread.js';

export interface PoolThreadOptions {
  readonly entry: URL;
  readonly workerData: unknown;
  readonly onResult: (result: JobResult) => void;
}

const loadMsMax = 60_000;

/** A worker thread as the pool sees it, from start to exit. It is replaced, never restarted. */
export class PoolThread<Job> {
  readonly #running = new Map<number, Job>();
  /** Resolves when the thread takes jobs. Rejects with the cause of `lost` if the thread is lost first. */
  readonly ready: Promise<void>;
  /**
   * Resolves with the cause when the thread is lost, that is, when it will send no more results. Never
   * rejects.
   */
  readonly lost: Promise<unknown>;
  /** Settles when the thread has exited. A lost thread exits once its native work is done. */
  readonly exited: Promise<void>;
  readonly #leftBehind: Promise<void>;
  #leaveBehind: () => void = () => {};
  #isLeftBehind = false;
  readonly #nativeWork = new Int32Array(new SharedArrayBuffer(4));
  readonly #worker: Worker;
  #isStopping = false;
  #isLost = false;
  #lose: (cause: unknown) => void = () => {};
  /** Ids of the jobs that were running at the last call of `isHung`. */
  #runningAtLastCheck: ReadonlySet<number> = new Set();

  /** Throws when the system cannot create a thread, or `workerData` cannot be cloned. */
  constructor({ entry, workerData, onResult }: PoolThreadOptions) {
    const worker = startThread(entry, { workerData });
    this.#worker = worker;
    this.exited = new Promise((resolve) => worker.once('exit', () => resolve()));
    this.#leftBehind = new Promise((resolve) => {
      this.#leaveBehind = () => {
        this.#isLeftBehind = true;
        resolve();
      };
    });
    this.#send({ nativeWork: this.#nativeWork });
    this.lost = new Promise((resolve) => {
      this.#lose = (cause) => {
        this.#isLost = true; // At once, before any handler of the promise.
        resolve(cause);
      };
    });
    watch(worker, this.#lose);
    // Ends the thread: the caller of a job whose result cannot be deserialized would wait forever.
    worker.on('messageerror', () => this.#send('end'));
    this.ready = new Promise((resolve, reject) => {
      const deadline = setTimeout(() => void worker.terminate(), loadMsMax);
      worker.on('message', (message: MessageFromThread) => {
        // When the thread exits, Node emits its last messages without running promise handlers in between,
        // so the jobs of a lost thread may not be abandoned yet.
        if (message.kind === 'dying' || this.#isLost) return;
        if (message.kind !== 'ready') return onResult(message);
        clearTimeout(deadline);
        resolve();
      });
      void this.lost.then((cause) => {
        clearTimeout(deadline);
        reject(cause);
      });
    });
  }

  /** Jobs that were sent to the thread and have no result yet, by job id. */
  get running(): ReadonlyMap<number, Job> {
    return this.#running;
  }

  /** Whether the thread takes no more jobs. It may still send results. */
  get isEnding(): boolean {
    return this.#isStopping || this.#isLost;
  }

  /** Sends a job to the thread. Throws when its input cannot be cloned; then the job is not running. */
  start(job: Job, request: JobRequest): void {
    this.#send(request);
    this.#running.set(request.id, job);
  }

  /** Removes and returns the running job with this id; undefined if it was abandoned. */
  finish(id: number): Job | undefined {
    const job = this.#running.get(id);
    this.#running.delete(id);
    this.#terminateWhenIdle();
    return job;
  }

  /** Removes and returns all running jobs of a lost thread. Their later results are ignored. */
  abandon(): readonly Job[] {
    const jobs = [...this.#running.values()];
    this.#running.clear();
    return jobs;
  }

  /**
   * Whether a job has been running since the last call. Call it periodically. A job is compared with the
   * calls and not with a clock, because after a pause of the whole process its result may be unread.
   */
  isHung(): boolean {
    const before = this.#runningAtLastCheck;
    this.#runningAtLastCheck = new Set(this.#running.keys());
    return [...before].some((id) => this.#running.has(id));
  }

  /** Declares the thread lost. */
  giveUp(cause: Error): void {
    this.#lose(cause);
  }

  /** Whether `terminateLost` has failed. */
  get isLeftBehind(): boolean {
    return this.#isLeftBehind;
  }

  /**
   * Terminates a thread that was given up some time ago, so that it has started all jobs that it was sent.
   * Leaves it behind if it has native work (see `trackNativeWork`); a later call may succeed.
   */
  terminateLost(): void {
    if (Atomics.load(this.#nativeWork, 0) > 0) this.#leaveBehind();
    else void this.#worker.terminate();
  }

  /**
   * Terminates the thread once no job runs on it. Settles when it has exited or was left behind. Idempotent.
   *
   * Waits for running jobs, because argon2 aborts the whole process when its thread ends during a
   * computation.
   */
  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#terminateWhenIdle();
    await Promise.race([this.exited, this.#leftBehind]);
  }

  /** Leaves a lost thread alone: it exits by itself, and its abandoned jobs may still be computing. */
  #terminateWhenIdle(): void {
    if (!this.#isStopping || this.#isLost || this.#running.size > 0) return;
    void this.#worker.terminate();
  }

  #send(message: MessageToThread): void {
    this.#worker.postMessage(message);
  }
}

/** Calls `lose` with the cause when the thread will send no more results. */
function watch(worker: Worker, lose: (cause: unknown) => void): void {
  worker.on('message', (message: MessageFromThread) => {
    if (message.kind === 'dying') lose(message.cause);
  });
  worker.once('error', lose);
  worker.once('messageerror', lose);
  worker.once('exit', (code) => lose(new Error(`Thread ended by itself, with exit code ${code}`)));
}
