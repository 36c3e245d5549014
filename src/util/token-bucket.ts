import type { Clock } from '../clock.js';
import { LruMap } from './lru-map.js';

/** A burst of `count`, then `count` per `perMs`. */
export interface Rate {
  readonly count: number;
  readonly perMs: number;
}

export interface BucketOptions extends Rate {
  /** Maximum of tracked keys; over it the least recently used key is dropped. */
  readonly keysMax: number;
  readonly clock: Clock;
}

/** A shorter wait counts as none, because fractions of milliseconds do not add up exactly. */
const roundingMs = 0.001;

/**
 * Limits a rate per key: `count` at once, then one every `perMs / count`.
 *
 * Spec: the Generic Cell Rate Algorithm (ITU-T I.371). It stores one number per key: the time at which
 * its bucket would be empty again.
 */
export class Bucket {
  readonly #emptyAt: LruMap<string, number>;
  readonly #intervalMs: number;
  readonly #burstMs: number;
  readonly #clock: Clock;

  constructor({ count, perMs, keysMax, clock }: BucketOptions) {
    this.#intervalMs = perMs / count;
    this.#burstMs = perMs;
    this.#emptyAt = new LruMap(keysMax);
    this.#clock = clock;
  }

  /** Takes one and returns 0, or takes nothing and returns the ms until the next one is available. */
  take(key: string): number {
    const now = this.#clock();
    // Never over a full bucket: a clock set back must not extend a wait.
    const emptyAt = Math.min(Math.max(this.#emptyAt.get(key) ?? now, now), now + this.#burstMs);
    const waitMs = emptyAt + this.#intervalMs - this.#burstMs - now;
    const isFull = waitMs > roundingMs;
    this.#emptyAt.set(key, isFull ? emptyAt : emptyAt + this.#intervalMs);
    return isFull ? waitMs : 0;
  }
}
