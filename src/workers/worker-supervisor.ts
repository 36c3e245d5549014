import type { Log } from '../logging/log.js';
import { CrashHistory } from './crash-history.js';
import { PoolThread } from './pool-thread.js';
import type { Answer } from './thread.js';

export interface CrewOptions<Job> {
  readonly entry: URL;
  readonly threads: number;
  readonly workerData: unknown;
  readonly log: Log;
  readonly clock: () => number;
  readonly backOffMs: number;
  /** The thread takes orders from now on. */
  readonly onReady: (thread: PoolThread<Job>) => void;
  readonly onAnswer: (thread: PoolThread<Job>, answer: Answer) => void;
  /** What the thread had not answered it never will. */
  readonly onDeath: (thread: PoolThread<Job>, cause: unknown) => void;
  /** No thread is left and too many have died: those who wait should not. */
  readonly onHopeless: () => void;
}

/** Keeps a number of threads running: the dead are replaced, after a pause that grows. */
export class Crew<Job> {
  readonly #options: CrewOptions<Job>;
  readonly #crashes: CrashHistory;
  readonly #ready = new Set<PoolThread<Job>>();
  readonly #loading = new Set<PoolThread<Job>>();
  /** Lost, replaced, and not ended yet. */
  readonly #dying = new Set<PoolThread<Job>>();
  readonly #pauses = new Set<NodeJS.Timeout>();
  #isOpen = false;

  private constructor(options: CrewOptions<Job>) {
    this.#options = options;
    this.#crashes = new CrashHistory(options.clock, options.backOffMs);
  }

  /** Resolves when all are ready. Rejects, with none left, when one cannot load. */
  static async open<Job>(options: CrewOptions<Job>): Promise<Crew<Job>> {
    const crew = new Crew<Job>(options);
    const { threads } = options;
    try {
      await Promise.all(Array.from({ length: threads }, () => crew.#start()));
      if (crew.#ready.size < threads) throw new Error('A thread ended as soon as it was ready');
    } catch (cause) {
      await crew.close();
      throw new Error('Cannot open pool: a thread did not load', { cause });
    }
    crew.#isOpen = true;
    return crew;
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
    return this.#crashes.isTooMany;
  }

  get isHopeless(): boolean {
    return this.#ready.size === 0 && this.isFailing;
  }

  /** Each ends when nothing runs on it. Settles when all have; never rejects; twice is fine. */
  async close(): Promise<void> {
    this.#isOpen = false;
    for (const pause of this.#pauses) clearTimeout(pause);
    const all = [...this.#ready, ...this.#loading, ...this.#dying];
    await Promise.all(all.map((thread) => thread.stop()));
  }

  async #start(): Promise<void> {
    const { entry, workerData, onAnswer, onReady } = this.#options;
    const thread: PoolThread<Job> = new PoolThread({
      entry,
      workerData,
      onAnswer: (answer) => onAnswer(thread, answer),
    });
    this.#loading.add(thread);
    try {
      await thread.ready;
    } finally {
      this.#loading.delete(thread);
    }
    this.#ready.add(thread);
    void thread.lost.then((cause) => this.#bury(thread, cause));
    onReady(thread);
  }

  #bury(thread: PoolThread<Job>, cause: unknown): void {
    this.#ready.delete(thread);
    this.#dying.add(thread);
    void thread.gone.then(() => this.#dying.delete(thread));
    this.#options.onDeath(thread, cause);
    this.#replaceLater(cause);
  }

  #replaceLater(cause: unknown): void {
    if (!this.#isOpen) return;
    const pauseMs = this.#crashes.add();
    this.#options.log.error({ cause, crashes: this.crashes, pauseMs }, 'worker thread died');
    if (this.isHopeless) this.#options.onHopeless();
    const pause = setTimeout(() => {
      this.#pauses.delete(pause);
      void this.#replace();
    }, pauseMs);
    this.#pauses.add(pause);
  }

  async #replace(): Promise<void> {
    try {
      await this.#start();
      this.#options.log.info({ threads: this.#ready.size }, 'worker thread replaced');
    } catch (cause) {
      this.#replaceLater(cause);
    }
  }
}
