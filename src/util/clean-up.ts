import { setTimeout as rest } from 'node:timers/promises';
import type { Logger } from '../logging/logger.js';

export interface CleanUpOptions {
  /** Each does one batch, of 500 rows at least if so many are over, and answers how many went. */
  readonly tasks: Readonly<Record<string, () => Promise<number>>>;
  readonly intervalMs: number;
  readonly log: Logger;
}

type Task = readonly [name: string, run: () => Promise<number>];

const fullBatchRows = 500;
const batchesMax = 1000;
/** `close` waits for a rest, too. */
const pauseMaxMs = 250;

/**
 * Housekeeping in the background: every interval, give or take a tenth so that processes do not
 * meet, there is a round. Each task in turn does a batch, and those whose batch was full go on, with
 * a rest as long as the work, until none was. After 1000 batches it is said that clean-up is behind,
 * and the next round, with all tasks, follows at once. A task that fails is logged and has its turn
 * in the next.
 */
export class CleanUp {
  readonly #options: CleanUpOptions;
  #timer: NodeJS.Timeout | undefined;
  #currentRun: Promise<void> = Promise.resolve();
  #isOpen = true;

  private constructor(options: CleanUpOptions) {
    this.#options = options;
  }

  static start(options: CleanUpOptions): CleanUp {
    const cleanUp = new CleanUp(options);
    cleanUp.#schedule(options.intervalMs);
    return cleanUp;
  }

  /** No task runs any more once it settles. Twice is fine; never rejects. */
  async close(): Promise<void> {
    this.#isOpen = false;
    clearTimeout(this.#timer);
    await this.#currentRun;
  }

  #schedule(ms: number): void {
    const delayMs = ms * (0.9 + 0.2 * Math.random());
    this.#timer = setTimeout(() => {
      this.#currentRun = this.#run();
    }, delayMs).unref();
  }

  async #run(): Promise<void> {
    const { tasks, intervalMs, log } = this.#options;
    let full: Task[] = Object.entries(tasks);
    for (let batch = 0; batch < batchesMax && full.length > 0; batch += 1) {
      const startedAt = performance.now();
      full = await this.#runBatches(full);
      if (full.length > 0) await rest(Math.min(performance.now() - startedAt, pauseMaxMs));
    }
    const isBehind = full.length > 0 && this.#isOpen;
    if (isBehind) log.warn({ tasks: full.map(([task]) => task) }, 'clean-up is behind');
    if (this.#isOpen) this.#schedule(isBehind ? 0 : intervalMs);
  }

  /** One each; answers whose was full. */
  async #runBatches(tasks: readonly Task[]): Promise<Task[]> {
    const { log } = this.#options;
    const full: Task[] = [];
    for (const [task, run] of tasks) {
      if (!this.#isOpen) return [];
      try {
        const rows = await run();
        if (rows > 0) log.debug({ task, rows }, 'cleaned up');
        if (rows >= fullBatchRows) full.push([task, run]);
      } catch (cause) {
        log.warn({ task, cause }, 'clean-up failed');
      }
    }
    return full;
  }
}
