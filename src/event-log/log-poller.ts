import type { Listening } from '../db/database.js';
import type { Log } from '../logging/log.js';

/** The part of the event log that the poller needs. */
export interface Polled {
  /** The newest event delivered. */
  readonly head: number;
  /** Delivers what others have appended. Rejects when the store does. */
  catchUp(): Promise<void>;
}

export interface FollowerOptions {
  readonly eventLog: Polled;
  readonly log: Log;
  /** As `LogStore.listen`: while it notifies, polling only covers what it may have missed. */
  readonly listen: (onAppended: () => void) => Listening | undefined;
  /** Between looks while events come in, when none do, and while the database wakes us. */
  readonly pollMs: { readonly busy: number; readonly quiet: number; readonly woken: number };
}

/**
 * Looks for events that other processes have written: often while there are some, less often when
 * there are none, and at once when it is woken. A database that is away is asked again and again;
 * what was missed is delivered in order once it is back.
 */
export class Follower {
  readonly #options: FollowerOptions;
  #delayMs: number;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;
  #isWoken = false;
  #isOpen = true;
  #isAway = false;
  #listening: Listening | undefined;

  private constructor(options: FollowerOptions) {
    this.#options = options;
    this.#delayMs = options.pollMs.busy;
  }

  static start(options: FollowerOptions): Follower {
    const follower = new Follower(options);
    follower.#listening = options.listen(() => follower.wake());
    follower.#wait();
    return follower;
  }

  /** There is something new: looks now, or once more after the look that is under way. */
  wake(): void {
    if (!this.#isOpen) return;
    this.#isWoken = true;
    if (this.#looking === undefined) this.#begin();
  }

  /** Waits for the look that is under way. Twice is fine; never rejects. */
  async close(): Promise<void> {
    this.#isOpen = false;
    clearTimeout(this.#timer);
    await this.#listening?.close();
    await this.#looking;
  }

  #wait(): void {
    const isListening = this.#listening?.isListening === true;
    const delayMs = isListening ? this.#options.pollMs.woken : this.#delayMs;
    this.#timer = setTimeout(() => this.#begin(), delayMs).unref();
  }

  #begin(): void {
    clearTimeout(this.#timer);
    this.#looking = this.#look();
  }

  async #look(): Promise<void> {
    const { eventLog, pollMs, log } = this.#options;
    this.#isWoken = false;
    const before = eventLog.head;
    try {
      await eventLog.catchUp();
      this.#isAway = false;
    } catch (cause) {
      if (!this.#isAway) log.warn({ cause }, 'log cannot be followed, will try again');
      this.#isAway = true; // One line for one outage.
    }
    const isBusy = eventLog.head > before;
    this.#delayMs = isBusy ? pollMs.busy : Math.min(this.#delayMs * 2, pollMs.quiet);
    this.#looking = undefined;
    if (!this.#isOpen) return;
    if (this.#isWoken && !this.#isAway) this.#begin();
    else this.#wait();
  }
}
