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
  /** The thread takes orders from now on. */
  readonly onReady: (thread: PoolThread<Job>) => void;
  readonly onResult: (thread: PoolThread<Job>, answer: JobResult) => void;
  /** What the thread had not answered it never will. */
  readonly onExit: (thread: PoolThread<Job>, cause: unknown) => void;
  /** No thread is left and too many have died: those who wait should not. */
  readonly onExhausted: () => void;
}

/** Keeps a number of threads running: the dead are replaced, after a pause that grows. */
export class WorkerSupervisor<Job> {
  readonly #options: WorkerSupervisorOptions<Job>;
  readonly #crashes: CrashHistory;
  readonly #ready = new Set<PoolThread<Job>>();
  readonly #loading = new Set<PoolThread<Job>>();
  /** Lost, replaced, and not ended yet. */
  readonly #exiting = new Set<PoolThread<Job>>();
  readonly #restartTimers = new Set<NodeJS.Timeout>();
  #isOpen = false;

  private constructor(options: WorkerSupervisorOptions<Job>) {
    this.#options = options;
    this.#crashes = new CrashHistory(options.monotonicClock, options.backOffMs);
  }

  /** Resolves when all are ready. Rejects, with none left, when one cannot load. */
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

  /** Those that take orders. */
  get ready(): ReadonlySet<PoolThread<Job>> {
    return this.#ready;
  }

  get crashes(): number {
    return this.#crashes.total;
  }

  /** More than 5 died within a minute. */
  get isFailing(): boolean {
    return this.#crashes.isCrashLooping;
  }

  get isExhausted(): boolean {
    return this.#ready.size === 0 && this.isFailing;
  }

  /** Each ends when nothing runs on it. Settles when all have; never rejects; twice is fine. */
  async close(): Promise<void> {
    this.#isOpen = false;
    for (const timer of this.#restartTimers) clearTimeout(timer);
    const all = [...this.#ready, ...this.#loading, ...this.#exiting];
    await Promise.all(all.map((thread) => thread.stop()));
  }

  async #start(): Promise<void> {
    const { entry, workerData, onResult, onReady } = this.#options;
    const thread: PoolThread<Job> = new PoolThread({
      entry,
      workerData,
      onResult: (answer) => onResult(thread, answer),
    });
    this.#loading.add(thread);
    try {
      await thread.ready;
    } finally {
      this.#loading.delete(thread);
    }
    this.#ready.add(thread);
    void thread.lost.then((cause) => this.#handleExit(thread, cause));
    onReady(thread);
  }

  #handleExit(thread: PoolThread<Job>, cause: unknown): void {
    this.#ready.delete(thread);
    this.#exiting.add(thread);
    void thread.exited.then(() => this.#exiting.delete(thread));
    this.#options.onExit(thread, cause);
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
