import type { Subscription } from '../db/database.js';
import type { Logger } from '../logging/logger.js';

/** The part of the event log that the poller needs. */
export interface PolledLog {
  /** The newest event delivered. */
  readonly head: number;
  /** Delivers what others have appended. Rejects when the store does. */
  catchUp(): Promise<void>;
}

export interface LogPollerOptions {
  readonly eventLog: PolledLog;
  readonly log: Logger;
  /** As `LogStore.listen`: while it notifies, polling only covers what it may have missed. */
  readonly listen: (onAppended: () => void) => Subscription | undefined;
  /** Between looks while events come in, when none do, and while the database wakes us. */
  readonly pollMs: { readonly busy: number; readonly idle: number; readonly notified: number };
}

/**
 * Looks for events that other processes have written: often while there are some, less often when
 * there are none, and at once when it is woken. A database that is away is asked again and again;
 * what was missed is delivered in order once it is back.
 */
export class LogPoller {
  readonly #options: LogPollerOptions;
  #delayMs: number;
  #timer: NodeJS.Timeout | undefined;
  #polling: Promise<void> | undefined;
  #pollAgain = false;
  #isOpen = true;
  #isUnavailable = false;
  #subscription: Subscription | undefined;

  private constructor(options: LogPollerOptions) {
    this.#options = options;
    this.#delayMs = options.pollMs.busy;
  }

  static start(options: LogPollerOptions): LogPoller {
    const poller = new LogPoller(options);
    poller.#subscription = options.listen(() => poller.pollNow());
    poller.#schedule();
    return poller;
  }

  /** There is something new: looks now, or once more after the look that is under way. */
  pollNow(): void {
    if (!this.#isOpen) return;
    this.#pollAgain = true;
    if (this.#polling === undefined) this.#startPoll();
  }

  /** Waits for the look that is under way. Twice is fine; never rejects. */
  async close(): Promise<void> {
    this.#isOpen = false;
    clearTimeout(this.#timer);
    await this.#subscription?.close();
    await this.#polling;
  }

  #schedule(): void {
    const isSubscribed = this.#subscription?.isActive === true;
    const delayMs = isSubscribed ? this.#options.pollMs.notified : this.#delayMs;
    this.#timer = setTimeout(() => this.#startPoll(), delayMs).unref();
  }

  #startPoll(): void {
    clearTimeout(this.#timer);
    this.#polling = this.#poll();
  }

  async #poll(): Promise<void> {
    const { eventLog, pollMs, log } = this.#options;
    this.#pollAgain = false;
    const before = eventLog.head;
    try {
      await eventLog.catchUp();
      this.#isUnavailable = false;
    } catch (cause) {
      if (!this.#isUnavailable) log.warn({ cause }, 'event log could not be polled, retrying');
      this.#isUnavailable = true; // One line for one outage.
    }
    const isBusy = eventLog.head > before;
    this.#delayMs = isBusy ? pollMs.busy : Math.min(this.#delayMs * 2, pollMs.idle);
    this.#polling = undefined;
    if (!this.#isOpen) return;
    if (this.#pollAgain && !this.#isUnavailable) this.#startPoll();
    else this.#schedule();
  }
}
