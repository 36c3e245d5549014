import type { Logger } from '../logging/logger.js';
import type { Release, TokenHolders } from './token-holders.js';

const batchMax = 500;

/**
 * Releases the tokens of streams that have ended, in batches: streams that end during a statement share
 * the next one, because thousands can end together. A token that could not be released becomes
 * openable again like that of a process that was killed; nothing is retried.
 */
export class TokenReleases {
  readonly #holders: Pick<TokenHolders, 'release'>;
  readonly #log: Logger;
  readonly #undecided = new Set<Promise<void>>();
  #waiting: Release[] = [];
  #writing: Promise<void> | undefined;

  constructor(holders: Pick<TokenHolders, 'release'>, log: Logger) {
    this.#holders = holders;
    this.#log = log;
  }

  /** Releases a token once `claim`, the last claim of the stream, has settled. */
  add(release: Release, claim: Promise<unknown>): void {
    const deciding = claim
      .catch(() => {}) // The caller handles the error. The claim may have been committed.
      .then(() => {
        this.#undecided.delete(deciding);
        this.#waiting.push(release);
        this.#writing ??= this.#write();
      });
    this.#undecided.add(deciding);
  }

  /** Resolves when no release is waiting. Never rejects. */
  async idle(): Promise<void> {
    while (this.#undecided.size > 0 || this.#writing !== undefined)
      await Promise.all([...this.#undecided, this.#writing]);
  }

  async #write(): Promise<void> {
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, batchMax);
      try {
        await this.#holders.release(batch);
      } catch (cause) {
        const count = batch.length + this.#waiting.splice(0).length; // All would fail alike.
        this.#log.warn({ cause, tokens: count }, 'stream tokens could not be released');
      }
    }
    this.#writing = undefined;
  }
}
