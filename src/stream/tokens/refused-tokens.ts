import { LruMap } from '../../util/lru-map.js';
import { SharedCall } from '../../util/shared-call.js';

/** A new expiry for the tokens of clients that were refused. */
export interface NewExpiry {
  readonly tokenHashes: readonly string[];
  /** Only tokens that had not expired at this time get the new expiry, epoch ms. */
  readonly validAt: number;
  /** Epoch ms. Tokens that expire later do not change. */
  readonly until: number;
}

export interface RefusedTokensOptions {
  readonly wallClock: () => number;
  /** Stores the new expiry of at most 500 tokens. */
  readonly storeExpiry: (expiry: NewExpiry) => Promise<void>;
}

interface RefusedToken {
  /** Time of the first of consecutive refusals, epoch ms. A token that had expired by then stays expired. */
  readonly since: number;
  /** Epoch ms. */
  readonly until: number;
}

/** Time after the wait within which the client must reconnect. Includes the time until the next `store`. */
const marginMs = 30_000;
const tokensMax = 10_000;
const batchMax = 500;

/**
 * Keeps the tokens of refused clients alive while these clients wait to retry. If a token expired meanwhile, a
 * browser would get 401 and never reconnect.
 *
 * A token is kept alive in this process at once, and in every process from the next `store` on. So a refusal
 * itself writes nothing: anybody can cause many refusals. Above 10,000 tokens, the token that was refused least
 * recently is dropped.
 */
export class RefusedTokens {
  readonly #wallClock: () => number;
  readonly #storeExpiry: RefusedTokensOptions['storeExpiry'];
  readonly #tokens = new LruMap<string, RefusedToken>(tokensMax);
  /** The tokens to be stored, each with the time of its first refusal since it was stored last. */
  readonly #unstored = new LruMap<string, number>(tokensMax);
  readonly #storing = new SharedCall(() => this.#storeAll());

  constructor({ wallClock, storeExpiry }: RefusedTokensOptions) {
    this.#wallClock = wallClock;
    this.#storeExpiry = storeExpiry;
  }

  /** Keeps the token of a client alive that was told to retry after `waitMs`. */
  add(hash: string, waitMs: number): void {
    const now = this.#wallClock();
    const earlier = this.#tokens.get(hash);
    const until = now + waitMs + marginMs;
    const isKept = earlier !== undefined && now < earlier.until;
    this.#tokens.set(
      hash,
      isKept
        ? { since: earlier.since, until: Math.max(until, earlier.until) }
        : { since: now, until },
    );
    this.#unstored.set(hash, this.#unstored.get(hash) ?? now);
  }

  /** Returns whether this process keeps a token alive whose stored expiry is `expiresAt`. */
  isKeptAlive(hash: string, expiresAt: number): boolean {
    const token = this.#tokens.get(hash);
    return token !== undefined && token.since < expiresAt && this.#wallClock() < token.until;
  }

  /**
   * Stores the new expiry of all tokens that were added before the call, 500 at a time. Does nothing
   * if there are no such tokens. Rejects when `storeExpiry` rejects; the next call then tries again.
   */
  store(): Promise<void> {
    return this.#unstored.size === 0 ? Promise.resolve() : this.#storing.run();
  }

  async #storeAll(): Promise<void> {
    const unstored = [...this.#unstored];
    for (let start = 0; start < unstored.length; start += batchMax) {
      const batch = unstored.slice(start, start + batchMax).map(([hash, refusedAt]) => {
        return { hash, refusedAt, token: this.#tokens.get(hash) };
      });
      await this.#storeExpiry({
        tokenHashes: batch.map(({ hash }) => hash),
        validAt: Math.min(...batch.map(({ refusedAt }) => refusedAt)),
        until: Math.max(...batch.map(({ token }) => token?.until ?? 0)),
      });
      for (const { hash, token } of batch) {
        // A token that was refused again meanwhile needs a later expiry.
        if (this.#tokens.get(hash) === token) this.#unstored.delete(hash);
      }
    }
  }
}
