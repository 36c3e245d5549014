import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from '../logging/logger.js';

export interface CleanUpOptions {
  /**
   * Tasks by name. Each deletes one batch, of at least 500 rows if that many are due, and returns the
   * number of deleted rows.
   */
  readonly tasks: Readonly<Record<string, () => Promise<number>>>;
  readonly intervalMs: number;
  readonly log: Logger;
  /** Resolves with true while nothing may be deleted. Must not reject. Default: never paused. */
  readonly isPaused?: () => Promise<boolean>;
}

type Task = readonly [name: string, run: () => Promise<number>];

const fullBatchRows = 500;
const batchesMax = 1000;
/** Maximum delay between batches. Bounded because `close` waits for a running delay, too. */
const delayMaxMs = 250;

/**
 * Runs clean-up tasks periodically, with 10% jitter so that processes do not coincide.
 *
 * In a run, each task deletes one batch. Tasks whose batch was full (500 rows) then delete another one,
 * after a delay as long as the last batches took but at most 250 ms, until no batch is full. After 1000
 * batches per task the run ends, logs `clean-up is behind`, and the next run, with all tasks, follows at
 * once. A task that fails is logged and retried in the next run.
 *
 * While `isPaused` returns true, no batch starts. Each such pause is logged once.
 */
export class CleanUp {
  readonly #options: CleanUpOptions;
  #timer: NodeJS.Timeout | undefined;
  #currentRun: Promise<void> = Promise.resolve();
  #isLoggedAsPaused = false;
  #isOpen = true;

  private constructor(options: CleanUpOptions) {
    this.#options = options;
  }

  /** Schedules the first run after `intervalMs`. The timer does not keep the process alive. */
  static start(options: CleanUpOptions): CleanUp {
    const cleanUp = new CleanUp(options);
    cleanUp.#schedule(options.intervalMs);
    return cleanUp;
  }

  /** Stops the schedule. Settles when no task is running. Idempotent; never rejects. */
  async close(): Promise<void> {
    this.#isOpen = false;
    clearTimeout(this.#timer);
    await this.#currentRun;
  }

  #schedule(periodMs: number): void {
    const delayMs = periodMs * (0.9 + 0.2 * Math.random());
    this.#timer = setTimeout(() => {
      this.#currentRun = this.#run();
    }, delayMs).unref();
  }

  async #run(): Promise<void> {
    const { tasks, intervalMs, log } = this.#options;
    let remaining: Task[] = Object.entries(tasks);
    for (let batch = 0; batch < batchesMax && remaining.length > 0; batch += 1) {
      if (await this.#isPaused()) remaining = [];
      const startedAt = performance.now();
      remaining = await this.#runBatches(remaining);
      if (remaining.length > 0) await delay(Math.min(performance.now() - startedAt, delayMaxMs));
    }
    const isBehind = remaining.length > 0 && this.#isOpen;
    if (isBehind) log.warn({ tasks: remaining.map(([task]) => task) }, 'clean-up is behind');
    if (this.#isOpen) this.#schedule(isBehind ? 0 : intervalMs);
  }

  async #isPaused(): Promise<boolean> {
    const { isPaused = async () => false, log } = this.#options;
    const isPausedNow = await isPaused();
    if (isPausedNow && !this.#isLoggedAsPaused) log.warn({}, 'clean-up is paused');
    this.#isLoggedAsPaused = isPausedNow;
    return isPausedNow;
  }

  /** Runs one batch of each task. Returns the tasks whose batch was full. */
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
