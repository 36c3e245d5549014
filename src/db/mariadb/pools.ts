import type { Clock } from '../../clock.js';

interface EndablePool {
  end(): Promise<unknown>;
}

interface PoolGeneration<Pool> {
  readonly pool: Pool;
  readonly openedAt: number;
  running: number;
}

/** After this time the host name is resolved again. */
const poolLifeMs = 1_800_000;
const replaceIntervalMinMs = 1000;

/**
 * Manages the current pool. A replaced pool is ended once the work on it has finished, because ending a pool
 * rejects statements that wait for one of its connections.
 */
export class MariadbPools<Pool extends EndablePool> {
  readonly #createPool: () => Pool;
  readonly #monotonicClock: Clock;
  #current: PoolGeneration<Pool>;
  readonly #retired = new Set<PoolGeneration<Pool>>();
  #isClosed = false;

  constructor(createPool: () => Pool, monotonicClock: Clock = () => performance.now()) {
    this.#createPool = createPool;
    this.#monotonicClock = monotonicClock;
    this.#current = this.#open();
  }

  /** Runs `work` on the current pool. */
  async use<Result>(work: (pool: Pool) => Promise<Result>): Promise<Result> {
    if (this.#monotonicClock() - this.#current.openedAt > poolLifeMs) this.#replace();
    const generation = this.#current;
    generation.running += 1;
    try {
      return await work(generation.pool);
    } finally {
      generation.running -= 1;
      if (generation !== this.#current && generation.running === 0) this.#end(generation);
    }
  }

  /**
   * Replaces the pool because its connections would return the same error again, for example after a failover
   * that made their server read-only. Does nothing within a second of the last replacement, because the state
   * can be permanent.
   */
  replaceUnusable(): void {
    if (this.#monotonicClock() - this.#current.openedAt > replaceIntervalMinMs) this.#replace();
  }

  /** Ends all pools. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.allSettled([...this.#retired, this.#current].map(({ pool }) => pool.end()));
  }

  #open(): PoolGeneration<Pool> {
    return { pool: this.#createPool(), openedAt: this.#monotonicClock(), running: 0 };
  }

  #replace(): void {
    if (this.#isClosed) return;
    const previous = this.#current;
    this.#current = this.#open();
    this.#retired.add(previous);
    if (previous.running === 0) this.#end(previous);
  }

  #end(generation: PoolGeneration<Pool>): void {
    if (!this.#retired.delete(generation)) return; // Already ended.
    generation.pool.end().catch(() => undefined); // The pool is discarded, whether or not it ends well.
  }
}
