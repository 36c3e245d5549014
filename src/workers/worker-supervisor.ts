import type { Logger } from '../logging/logger.js';
import { CrashHistory } from './crash-history.js';
import { PoolThread } from './pool-thread.js';
import type { JobResult } from './thread.js';

export interface WorkerSupervisorOptions<Job> {
  readonly entry: URL;
  readonly threads: number;
  readonly workerData: unknown;
  readonly log: Logger;
  readonly monotonicClock: () => number;
  readonly backOffMs: number;
  /** See `PoolOptions`. */
  readonly jobMsMax: number;
  /** Called when a thread is ready for jobs. */
  readonly onReady: (thread: PoolThread<Job>) => void;
  readonly onResult: (thread: PoolThread<Job>, result: JobResult) => void;
  /** Called when a ready thread is lost: its running jobs will have no result. */
  readonly onLost: (thread: PoolThread<Job>, cause: unknown) => void;
  /** Called after a crash while `isExhausted` is true: queued jobs must be rejected. */
  readonly onExhausted: () => void;
}

/** Keeps a fixed number of threads running. Replaces crashed and hung ones with exponential back-off. */
export class WorkerSupervisor<Job> {
  readonly #options: WorkerSupervisorOptions<Job>;
  readonly #crashes: CrashHistory;
  readonly #ready = new Set<PoolThread<Job>>();
  readonly #loading = new Set<PoolThread<Job>>();
  /** Lost threads that have not exited yet. */
  readonly #exiting = new Set<PoolThread<Job>>();
  /** Lost threads that hang and have not exited yet. */
  readonly #hung = new Set<PoolThread<Job>>();
  readonly #restartTimers = new Set<NodeJS.Timeout>();
  readonly #hangTimer: NodeJS.Timeout;
  #isOpen = false;

  private constructor(options: WorkerSupervisorOptions<Job>) {
    this.#options = options;
    this.#crashes = new CrashHistory(options.monotonicClock, options.backOffMs);
    this.#hangTimer = setInterval(() => this.#checkThreads(), options.jobMsMax).unref();
  }

  /** Resolves when all threads are ready. Rejects when one cannot load, after all others have exited. */
  static async open<Job>(options: WorkerSupervisorOptions<Job>): Promise<WorkerSupervisor<Job>> {
    const supervisor = new WorkerSupervisor<Job>(options);
    const { threads } = options;
    try {
      await Promise.all(Array.from({ length: threads }, () => supervisor.#start()));
      if (supervisor.#ready.size < threads)
        throw new Error('A thread ended as soon as it was ready');
    } catch (cause) {
      await supervisor.close();
      throw new Error('Cannot open pool: a thread did not load', { cause });
    }
    supervisor.#isOpen = true;
    return supervisor;
  }

  /** The threads that take jobs. */
  get ready(): ReadonlySet<PoolThread<Job>> {
    return this.#ready;
  }

  /** Number of thread crashes since the start. */
  get crashes(): number {
    return this.#crashes.total;
  }

  /** Whether more than 5 threads crashed within the last minute. */
  get isFailing(): boolean {
    return this.#crashes.isCrashLooping;
  }

  /** Whether no thread is ready and more than 5 threads crashed within the last minute. */
  get isExhausted(): boolean {
    return this.#ready.size === 0 && this.isFailing;
  }

  /**
   * Stops each thread once no job runs on it. Settles when all have exited. Idempotent; never
   * rejects.
   */
  async close(): Promise<void> {
    this.#isOpen = false;
    for (const timer of this.#restartTimers) clearTimeout(timer);
    const all = [...this.#ready, ...this.#loading, ...this.#exiting];
    await Promise.all(all.map((thread) => thread.stop()));
    clearInterval(this.#hangTimer); // Not earlier, because a hung thread stops only when it is declared lost.
  }

  async #start(): Promise<void> {
    const { entry, workerData, onResult, onReady } = this.#options;
    const thread: PoolThread<Job> = new PoolThread({
      entry,
      workerData,
      onResult: (result) => onResult(thread, result),
    });
    this.#loading.add(thread);
    try {
      await thread.ready;
    } finally {
      this.#loading.delete(thread);
    }
    this.#ready.add(thread);
    void thread.lost.then((cause) => this.#handleLoss(thread, cause));
    onReady(thread);
  }

  /** Terminates the hung threads that earlier calls declared lost, and declares lost the threads that hang now. */
  #checkThreads(): void {
    const { jobMsMax, log } = this.#options;
    for (const thread of this.#hung) {
      const wasLeftBehind = thread.isLeftRunning;
      thread.terminateLost();
      if (thread.isLeftRunning && !wasLeftBehind)
        log.error({}, 'hanging worker thread left running');
    }
    for (const thread of this.#ready) {
      if (!thread.isHung()) continue;
      thread.declareLost(new Error(`Thread hangs: a job has run for more than ${jobMsMax} ms`));
      this.#hung.add(thread);
      void thread.exited.then(() => this.#hung.delete(thread));
    }
  }

  #handleLoss(thread: PoolThread<Job>, cause: unknown): void {
    this.#ready.delete(thread);
    this.#exiting.add(thread);
    void thread.exited.then(() => this.#exiting.delete(thread));
    this.#options.onLost(thread, cause);
    this.#scheduleRestart(cause);
  }

  #scheduleRestart(cause: unknown): void {
    if (!this.#isOpen) return;
    const pauseMs = this.#crashes.record();
    this.#options.log.error({ cause, crashes: this.crashes, pauseMs }, 'worker thread exited');
    if (this.isExhausted) this.#options.onExhausted();
    const timer = setTimeout(() => {
      this.#restartTimers.delete(timer);
      void this.#restart();
    }, pauseMs);
    this.#restartTimers.add(timer);
  }

  async #restart(): Promise<void> {
    try {
      await this.#start();
      this.#options.log.info({ threads: this.#ready.size }, 'worker thread replaced');
    } catch (cause) {
      this.#scheduleRestart(cause);
    }
  }
}
