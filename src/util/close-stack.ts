import type { Logger } from '../logging/logger.js';

interface Closer {
  readonly part: string;
  readonly close: () => void | Promise<void>;
}

/** What is open, to be closed in reverse. */
export class CloseStack {
  readonly #log: Logger;
  readonly #closers: Closer[] = [];

  constructor(log: Logger) {
    this.#log = log;
  }

  add(part: string, close: Closer['close']): void {
    this.#closers.push({ part, close });
  }

  /**
   * Closes every part, whatever becomes of those before. One that has not closed by `until`, as
   * `performance.now()` counts, is named in the log and left to itself. Never rejects.
   */
  async close(deadlineAt: number): Promise<void> {
    for (let next = this.#closers.pop(); next !== undefined; next = this.#closers.pop()) {
      await this.#closeOne(next, Math.max(0, deadlineAt - performance.now()));
    }
  }

  #closeOne({ part, close }: Closer, ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#log.warn({ part }, 'component did not close in time');
        resolve();
      }, ms);
      const closing = async () => close();
      closing()
        .catch((cause: unknown) => this.#log.error({ part, cause }, 'component failed to close'))
        .finally(() => {
          clearTimeout(timer);
          resolve();
        });
    });
  }
}
