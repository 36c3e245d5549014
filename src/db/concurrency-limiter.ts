import { closedError, unavailable } from './failures.js';

/**
 * `requests`: work for single requests, of which clients can send any number. `background`: work that runs
 * a bounded number of statements at a time, and that must continue while requests are refused.
 */
export type Share = 'requests' | 'background';

/**
 * The limits of a process on a database server. All background work of a process together runs far fewer
 * than 200 statements at a time.
 */
export const inFlightMax = { requests: 2000, background: 200 };

interface ConcurrencyLimiterOptions {
  /** Maximum number of concurrent statements and transactions per share, including waiting ones. */
  readonly inFlightMax: Readonly<Record<Share, number>>;
  /**
   * Maximum number of concurrent transactions of both shares. Must be lower than the number of
   * connections, so that single statements can always run.
   */
  readonly transactionsMax: number;
  /** How long a transaction waits for a free slot. */
  readonly waitMs: number;
}

/**
 * Limits concurrent statements and transactions, because a connection pool does not limit them. `close` waits
 * for those that run or wait.
 */
export class ConcurrencyLimiter {
  readonly #options: ConcurrencyLimiterOptions;
  readonly #running = {
    requests: new Set<Promise<unknown>>(),
    background: new Set<Promise<unknown>>(),
  };
  readonly #waiters = { requests: new Set<() => void>(), background: new Set<() => void>() };
  #transactionCount = 0;
  /** The share whose waiting work got the latest free slot. */
  #latestTurn: Share = 'requests';
  #isClosed = false;

  constructor(options: ConcurrencyLimiterOptions) {
    this.#options = options;
  }

  /** Runs `work`. Rejects with `service_unavailable` at `inFlightMax`. */
  async run<Result>(work: () => Promise<Result>, share: Share = 'requests'): Promise<Result> {
    if (this.#isClosed) throw closedError();
    const inFlight = this.#running[share];
    if (inFlight.size >= this.#options.inFlightMax[share]) {
      throw unavailable('overloaded');
    }
    const running = work();
    inFlight.add(running);
    try {
      return await running;
    } finally {
      inFlight.delete(running);
    }
  }

  /**
   * Runs `work` once one of `transactionsMax` slots is free. While work of both shares waits, the shares take
   * turns. Within a share, work runs in the order of its arrival. Rejects with `service_unavailable` at
   * `inFlightMax`, or after `waitMs`.
   */
  runTransaction<Result>(work: () => Promise<Result>, share: Share = 'requests'): Promise<Result> {
    return this.run(async () => {
      if (this.#transactionCount >= this.#options.transactionsMax) await this.#waitForSlot(share);
      else this.#transactionCount += 1;
      try {
        return await work();
      } finally {
        const nextWaiter = this.#getNextWaiter();
        if (nextWaiter === undefined) this.#transactionCount -= 1;
        else nextWaiter(); // Takes over the slot, so the count does not change.
      }
    }, share);
  }

  /** Refuses new work and waits for running and queued work. Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.allSettled([...this.#running.requests, ...this.#running.background]);
  }

  #getNextWaiter(): (() => void) | undefined {
    const { background, requests } = this.#waiters;
    const isBackground =
      requests.size === 0 || (background.size > 0 && this.#latestTurn === 'requests');
    this.#latestTurn = isBackground ? 'background' : 'requests';
    const [nextWaiter] = isBackground ? background : requests;
    return nextWaiter;
  }

  #waitForSlot(share: Share): Promise<void> {
    const waiters = this.#waiters[share];
    return new Promise((resolve, reject) => {
      const proceed = (): void => {
        clearTimeout(timer);
        waiters.delete(proceed);
        resolve();
      };
      const timer = setTimeout(() => {
        waiters.delete(proceed);
        reject(unavailable('overloaded', { state: 'all connections are busy' }));
      }, this.#options.waitMs);
      waiters.add(proceed);
    });
  }
}
