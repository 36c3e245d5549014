import { closedError, unavailable } from './failures.js';

interface ConcurrencyLimiterOptions {
  /** Statements and transactions under way; one more is refused. */
  readonly inFlightMax: number;
  /** Transactions at a time. Fewer than connections, or statements beside them could never run. */
  readonly transactionsMax: number;
  /** How long a transaction waits for its turn. */
  readonly waitMs: number;
}

/**
 * What a pool does not do: bounds what is under way, lets transactions take turns, and tells when
 * all has ended.
 */
export class ConcurrencyLimiter {
  readonly #options: ConcurrencyLimiterOptions;
  readonly #running = new Set<Promise<unknown>>();
  readonly #waiters = new Set<() => void>();
  #transactions = 0;
  #isClosed = false;

  constructor(options: ConcurrencyLimiterOptions) {
    this.#options = options;
  }

  /** Rejects with `service_unavailable` when too much is under way. */
  async run<Result>(work: () => Promise<Result>): Promise<Result> {
    if (this.#isClosed) throw closedError();
    if (this.#running.size >= this.#options.inFlightMax) {
      throw unavailable('too many statements are waiting');
    }
    const running = work();
    this.#running.add(running);
    try {
      return await running;
    } finally {
      this.#running.delete(running);
    }
  }

  /** The same, in turn with other transactions. */
  runTransaction<Result>(work: () => Promise<Result>): Promise<Result> {
    return this.run(async () => {
      if (this.#transactions >= this.#options.transactionsMax) await this.#waitForSlot();
      else this.#transactions += 1;
      try {
        return await work();
      } finally {
        const [next] = this.#waiters;
        if (next === undefined) this.#transactions -= 1;
        else next(); // Hands its turn on.
      }
    });
  }

  /** Refuses what comes, waits for what is under way. Twice is fine. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.allSettled(this.#running);
  }

  #waitForSlot(): Promise<void> {
    return new Promise((resolve, reject) => {
      const proceed = (): void => {
        clearTimeout(timer);
        this.#waiters.delete(proceed);
        resolve();
      };
      const timer = setTimeout(() => {
        this.#waiters.delete(proceed);
        reject(unavailable('all connections are busy'));
      }, this.#options.waitMs);
      this.#waiters.add(proceed);
    });
  }
}
