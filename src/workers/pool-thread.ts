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
  readonly #leftRunning: Promise<void>;
  #leaveRunning: () => void = () => {};
  #isLeftRunning = false;
  #isReady = false;
  readonly #nativeWork = new Int32Array(new SharedArrayBuffer(4));
  readonly #worker: Worker;
  #isStopping = false;
  #isLost = false;
  #resolveLost: (cause: unknown) => void = () => {};
  /** Ids of the jobs that were running at the last call of `isHung`. */
  #runningAtLastCheck: ReadonlySet<number> = new Set();

  /** Throws when the system cannot create a thread, or `workerData` cannot be cloned. */
  constructor({ entry, workerData, onResult }: PoolThreadOptions) {
    const worker = startThread(entry, { workerData });
    this.#worker = worker;
    this.exited = new Promise((resolve) => worker.once('exit', () => resolve()));
    this.#leftRunning = new Promise((resolve) => {
      this.#leaveRunning = () => {
        this.#isLeftRunning = true;
        resolve();
      };
    });
    this.#send({ nativeWork: this.#nativeWork });
    this.lost = new Promise((resolve) => {
      this.#resolveLost = (cause) => {
        this.#isLost = true; // Set before the handlers of the promise run.
        resolve(cause);
      };
    });
    watch(worker, this.#resolveLost);
    // Ends the thread: otherwise a job whose result cannot be deserialized would never settle.
    worker.on('messageerror', () => this.#send('end'));
    this.ready = new Promise((resolve, reject) => {
      const deadline = setTimeout(() => void worker.terminate(), loadMsMax);
      worker.on('message', (message: MessageFromThread) => {
        // When the thread exits, Node emits its last messages without running promise handlers in between.
        // A result can therefore arrive after the loss and before `abandon`.
        if (message.kind === 'exiting' || this.#isLost) return;
        if (message.kind !== 'ready') return onResult(message);
        clearTimeout(deadline);
        this.#isReady = true;
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
   * Whether a job has been running since the last call. Called periodically. This does not compare times,
   * because after a pause of the process the result of an old job may have arrived without being read.
   */
  isHung(): boolean {
    const before = this.#runningAtLastCheck;
    this.#runningAtLastCheck = new Set(this.#running.keys());
    return [...before].some((id) => this.#running.has(id));
  }

  /** Declares the thread lost. */
  declareLost(cause: Error): void {
    this.#resolveLost(cause);
  }

  /** Whether `terminateLost` has left the thread running. */
  get isLeftRunning(): boolean {
    return this.#isLeftRunning;
  }

  /**
   * Terminates a lost thread. Leaves it running if it has native work (see `trackNativeWork`); a later call may
   * succeed. Call it some time after the loss, when the thread has started all jobs that it received.
   */
  terminateLost(): void {
    if (Atomics.load(this.#nativeWork, 0) > 0) this.#leaveRunning();
    else void this.#worker.terminate();
  }

  /**
   * Terminates the thread once no job runs on it. Settles when it has exited or was left running. Idempotent.
   *
   * Waits for running jobs, because argon2 aborts the whole process when its thread ends during a
   * computation.
   */
  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#terminateWhenIdle();
    await Promise.race([this.exited, this.#leftRunning]);
  }

  /**
   * Does not end a lost thread: it exits by itself, and its abandoned jobs may still be computing. A thread that is
   * ready exits when it reads the command, not by `terminate`: the result of its last job may have been sent from
   * within a callback of argon2, which aborts the process if the thread ends before the callback returns.
   */
  #terminateWhenIdle(): void {
    if (!this.#isStopping || this.#isLost || this.#running.size > 0) return;
    if (this.#isReady) this.#send('end');
    else void this.#worker.terminate();
  }

  #send(message: MessageToThread): void {
    this.#worker.postMessage(message);
  }
}

/** Calls `onLost` with the cause when the thread will send no more results. */
function watch(worker: Worker, onLost: (cause: unknown) => void): void {
  worker.on('message', (message: MessageFromThread) => {
    if (message.kind === 'exiting') onLost(message.cause);
  });
  worker.once('error', onLost);
  worker.once('messageerror', onLost);
  worker.once('exit', (code) =>
    onLost(new Error(`Thread ended by itself, with exit code ${code}`)),
  );
}
