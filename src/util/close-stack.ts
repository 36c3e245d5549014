import type { Log } from '../logging/log.js';

interface Closer {
  readonly part: string;
  readonly close: () => void | Promise<void>;
}

/** What is open, to be closed in reverse. */
export class Closers {
  readonly #log: Log;
  readonly #closers: Closer[] = [];

  constructor(log: Log) {
    this.#log = log;
  }

  add(part: string, close: Closer['close']): void {
    this.#closers.push({ part, close });
  }

  /**
   * Closes every part, whatever becomes of those before. One that has not closed by `until`, as
   * `performance.now()` counts, is named in the log and left to itself. Never rejects.
   */
  async close(until: number): Promise<void> {
    for (let next = this.#closers.pop(); next !== undefined; next = this.#closers.pop()) {
      await this.#closeOne(next, Math.max(0, until - performance.now()));
    }
  }

  #closeOne({ part, close }: Closer, ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#log.warn({ part }, 'a part did not close in time');
        resolve();
      }, ms);
      const closing = async () => close();
      closing()
        .catch((cause: unknown) => this.#log.error({ part, cause }, 'a part did not close'))
        .finally(() => {
          clearTimeout(timer);
          resolve();
        });
    });
  }
}
