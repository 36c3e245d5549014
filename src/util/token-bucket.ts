import type { Clock } from '../clock.js';
import { LruMap } from './lru-map.js';

/** A rate limit: a burst of `count`, then `count` per `perMs`. */
export interface Rate {
  readonly count: number;
  readonly perMs: number;
}

/** Parses `<count>/<milliseconds>`, each from 1 to 999,999,999. Returns undefined for any other text. */
export function parseRate(text: string): Rate | undefined {
  const given = /^([1-9]\d{0,8})\/([1-9]\d{0,8})$/.exec(text);
  return given === null ? undefined : { count: Number(given[1]), perMs: Number(given[2]) };
}

/** Formats a rate as `parseRate` reads it. */
export function formatRate({ count, perMs }: Rate): string {
  return `${count}/${perMs}`;
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
    const fullAt = this.#getFullAt(key, now);
    const waitMs = this.#getWait(fullAt, now);
    this.#fullAt.set(key, waitMs > 0 ? fullAt : fullAt + this.#intervalMs);
    return waitMs;
  }

  /** Returns the ms until a token is available; 0 if one is. Takes none. */
  peek(key: string): number {
    const now = this.#clock();
    return this.#getWait(this.#getFullAt(key, now), now);
  }

  /** Returns a token that was taken but not used. */
  giveBack(key: string): void {
    const fullAt = this.#fullAt.get(key);
    if (fullAt !== undefined) this.#fullAt.set(key, fullAt - this.#intervalMs);
  }

  #getFullAt(key: string, now: number): number {
    // At most the time in which an empty bucket fills, because the clock may have been set back.
    return Math.min(Math.max(this.#fullAt.get(key) ?? now, now), now + this.#burstMs);
  }

  #getWait(fullAt: number, now: number): number {
    const waitMs = fullAt + this.#intervalMs - this.#burstMs - now;
    return waitMs > roundingMs ? waitMs : 0;
  }
}
