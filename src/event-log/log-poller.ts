import type { Subscription } from '../db/database.js';
import type { Logger } from '../logging/logger.js';

/** The part of `EventLog` that the poller uses. */
export interface PolledLog {
  /** Number of the newest entry that was delivered or applied. */
  readonly head: number;
  /** Delivers or applies entries that other processes appended. Rejects when the store rejects. */
  catchUp(): Promise<void>;
}

export interface LogPollerOptions {
  readonly eventLog: PolledLog;
  readonly log: Logger;
  /** Subscribes to notifications, see `LogStore.listen`. Polls then only cover missed notifications. */
  readonly listen: (onAppended: () => void) => Subscription | undefined;
  /** Poll intervals: `busy` while entries arrive, up to `idle` while none arrive, `notified` while subscribed. */
  readonly pollMs: { readonly busy: number; readonly idle: number; readonly notified: number };
}

/**
 * Polls for entries that other processes have appended: often while entries arrive, less often when
 * none arrive, and immediately after a notification. Polling continues while the database is unavailable, and
 * missed events are delivered in order afterwards.
 */
export class LogPoller {
  readonly #options: LogPollerOptions;
  #delayMs: number;
  #timer: NodeJS.Timeout | undefined;
  #polling: Promise<void> | undefined;
  #needsPoll = false;
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

  /** Polls now, or once more after the active poll. Does nothing after `close`. */
  pollNow(): void {
    if (!this.#isOpen) return;
    this.#needsPoll = true;
    if (this.#polling === undefined) this.#startPoll();
  }

  /** Stops polling and waits for the active poll. Idempotent; never rejects. */
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
    this.#needsPoll = false;
    const before = eventLog.head;
    try {
      await eventLog.catchUp();
      this.#isUnavailable = false;
    } catch (cause) {
      if (!this.#isUnavailable) log.warn({ cause }, 'event log could not be polled, retrying');
      this.#isUnavailable = true; // Logged once per outage.
    }
    const isBusy = eventLog.head > before;
    this.#delayMs = isBusy ? pollMs.busy : Math.min(this.#delayMs * 2, pollMs.idle);
    this.#polling = undefined;
    if (!this.#isOpen) return;
    if (this.#needsPoll && !this.#isUnavailable) this.#startPoll();
    else this.#schedule();
  }
}
