import type { Logger } from '../../logging/logger.js';
import type { Release, TokenHolders } from './token-holders.js';

const batchMax = 500;

/**
 * Releases the tokens of streams that have ended. Thousands of streams can end together, so tokens that
 * are added while a statement runs are released together, up to 500 per statement. A release that fails
 * is not retried: as after a crash of the process, the token can be opened again until its lease ends.
 */
export class TokenReleases {
  readonly #holders: Pick<TokenHolders, 'release'>;
  readonly #log: Logger;
  /** One promise per release that waits for its claim to settle. */
  readonly #waitingForClaim = new Set<Promise<void>>();
  #queue: Release[] = [];
  #writing: Promise<void> | undefined;

  constructor(holders: Pick<TokenHolders, 'release'>, log: Logger) {
    this.#holders = holders;
    this.#log = log;
  }

  /** Releases a token once `claim`, the newest claim of its stream, has settled. */
  add(release: Release, claim: Promise<unknown>): void {
    const added = claim
      .catch(() => {}) // `TokenClaim` handles the error. The claim may have been committed.
      .then(() => {
        this.#waitingForClaim.delete(added);
        this.#queue.push(release);
        this.#writing ??= this.#write();
      });
    this.#waitingForClaim.add(added);
  }

  /** Resolves when no release is waiting or being written. Never rejects. */
  async idle(): Promise<void> {
    while (this.#waitingForClaim.size > 0 || this.#writing !== undefined)
      await Promise.all([...this.#waitingForClaim, this.#writing]);
  }

  async #write(): Promise<void> {
    while (this.#queue.length > 0) {
      const batch = this.#queue.splice(0, batchMax);
      try {
        await this.#holders.release(batch);
      } catch (cause) {
        const count = batch.length + this.#queue.splice(0).length; // The others would fail as well.
        this.#log.warn({ cause, tokens: count }, 'stream tokens could not be released');
      }
    }
    this.#writing = undefined;
  }
}
