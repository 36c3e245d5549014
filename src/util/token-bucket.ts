import type { Clock } from '../clock.js';
import { LruMap } from './lru-map.js';

/** A rate limit: a burst of `count`, then `count` per `perMs`. */
export interface Rate {
  readonly count: number;
  readonly perMs: number;
}

export interface TokenBucketOptions extends Rate {
  /** Maximum number of tracked keys. Over it, the least recently used key is dropped. */
  readonly keysMax: number;
  readonly clock: Clock;
}

/** A wait shorter than this counts as none, because fractions of milliseconds do not add up exactly. */
const roundingMs = 0.001;

/**
 * Limits a rate per key: `count` at once, then one every `perMs / count`.
 *
 * Spec: the Generic Cell Rate Algorithm (ITU-T I.371). It stores one number per key: the time at which
 * its bucket will be full of tokens again.
 */
export class TokenBucket {
  readonly #fullAt: LruMap<string, number>;
  readonly #intervalMs: number;
  readonly #burstMs: number;
  readonly #clock: Clock;

  constructor({ count, perMs, keysMax, clock }: TokenBucketOptions) {
    this.#intervalMs = perMs / count;
    this.#burstMs = perMs;
    this.#fullAt = new LruMap(keysMax);
    this.#clock = clock;
  }

  /** Takes a token and returns 0, or takes none and returns the ms until one is available. */
  take(key: string): number {
    const now = this.#clock();
    // Limited to the time in which an empty bucket fills, so that a clock set back extends no wait further.
    const fullAt = Math.min(Math.max(this.#fullAt.get(key) ?? now, now), now + this.#burstMs);
    const waitMs = fullAt + this.#intervalMs - this.#burstMs - now;
    const isEmpty = waitMs > roundingMs;
    this.#fullAt.set(key, isEmpty ? fullAt : fullAt + this.#intervalMs);
    return isEmpty ? waitMs : 0;
  }
}
