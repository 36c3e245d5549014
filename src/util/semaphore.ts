/** Lets a few do something at a time; the others wait for their turn, first come, first served. */
export class Semaphore {
  #available: number;
  /** In the order in which they came. */
  readonly #waiters = new Set<() => void>();

  constructor(permits: number) {
    this.#available = permits;
  }

  /** Settles as `work` does. */
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
        next(); // Hands its turn on.
      }
    }
  }
}
