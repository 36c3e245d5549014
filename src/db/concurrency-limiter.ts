import { closedError, unavailable } from './failures.js';

interface ConcurrencyLimiterOptions {
  /** Maximum number of concurrent statements and transactions, including waiting ones. */
  readonly inFlightMax: number;
  /**
   * Maximum number of concurrent transactions. Must be lower than the number of connections, so
   * that single statements can always run.
   */
  readonly transactionsMax: number;
  /** How long a transaction waits for a free slot. */
  readonly waitMs: number;
}

/**
 * Limits concurrent statements and transactions, because a connection pool does not, and waits for
 * them on close.
 */
export class ConcurrencyLimiter {
  readonly #options: ConcurrencyLimiterOptions;
  readonly #running = new Set<Promise<unknown>>();
  readonly #waiters = new Set<() => void>();
  #transactionCount = 0;
  #isClosed = false;

  constructor(options: ConcurrencyLimiterOptions) {
    this.#options = options;
  }

  /** Runs `work`. Rejects with `service_unavailable` at `inFlightMax`. */
  async run<Result>(work: () => Promise<Result>): Promise<Result> {
    if (this.#isClosed) throw closedError();
    if (this.#running.size >= this.#options.inFlightMax) {
      throw unavailable('overloaded');
    }
    const running = work();
    this.#running.add(running);
    try {
      return await running;
    } finally {
      this.#running.delete(running);
    }
  }

  /**
   * Runs `work` once one of `transactionsMax` slots is free, first come, first served. Rejects with
   * `service_unavailable` at `inFlightMax`, or after `waitMs`.
   */
  runTransaction<Result>(work: () => Promise<Result>): Promise<Result> {
    return this.run(async () => {
      if (this.#transactionCount >= this.#options.transactionsMax) await this.#waitForSlot();
      else this.#transactionCount += 1;
      try {
        return await work();
      } finally {
        const [nextWaiter] = this.#waiters;
        if (nextWaiter === undefined) this.#transactionCount -= 1;
        else nextWaiter(); // Takes over the slot, so the count does not change.
      }
    });
  }

  /** Refuses new work and waits for running and queued work. Idempotent. */
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
        reject(unavailable('overloaded', { state: 'all connections are busy' }));
      }, this.#options.waitMs);
      this.#waiters.add(proceed);
    });
  }
}
