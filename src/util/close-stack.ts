import type { Logger } from '../logging/logger.js';

interface Closer {
  readonly component: string;
  readonly close: () => void | Promise<void>;
}

/** Closes components in reverse order of their opening. */
export class CloseStack {
  readonly #log: Logger;
  readonly #closers: Closer[] = [];

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Adds a component. `component` is its name in the log. */
  add(component: string, close: Closer['close']): void {
    this.#closers.push({ component, close });
  }

  /**
   * Closes every component, one after the other, even if some fail. Logs a component that has not closed by
   * `deadlineAt` (a `performance.now()` time), and does not wait for it any longer. Never rejects.
   */
  async close(deadlineAt: number): Promise<void> {
    for (let closer = this.#closers.pop(); closer !== undefined; closer = this.#closers.pop()) {
      await this.#closeOne(closer, Math.max(0, deadlineAt - performance.now()));
    }
  }

  #closeOne({ component, close }: Closer, timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#log.warn({ part: component }, 'component did not close in time');
        resolve();
      }, timeoutMs);
      const closing = async () => close();
      closing()
        .catch((cause: unknown) =>
          this.#log.error({ part: component, cause }, 'component failed to close'),
        )
        .finally(() => {
          clearTimeout(timer);
          resolve();
        });
    });
  }
}
