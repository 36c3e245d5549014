/** Limits how many operations run at the same time; the others wait in FIFO order. */
export class Semaphore {
  #available: number;
  /** In order of arrival. */
  readonly #waiters = new Set<() => void>();

  constructor(permits: number) {
    this.#available = permits;
  }

  /** Number of operations that wait for a permit. */
  get waiting(): number {
    return this.#waiters.size;
  }

  /** Runs `work` once a permit is available. Settles as `work` does. */
  async run<Result>(work: () => Promise<Result>): Promise<Result> {
    if (this.#available > 0) this.#available -= 1;
    else await new Promise<void>((resolve) => this.#waiters.add(resolve));
    try {
      return await work();
    } finally {
      const [next] = this.#waiters;
      if (next === undefined) this.#available += 1;
      else {
        this.#waiters.delete(next);
        next(); // Passes the permit on.
      }
    }
  }
}
