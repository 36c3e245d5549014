import type { Clock } from '../clock.js';
import { LruMap } from './lru-map.js';

/** How many at once, and how many in each `perMs` after that. */
export interface Rate {
  readonly count: number;
  readonly perMs: number;
}

export interface BucketOptions extends Rate {
  /** How many keys are remembered; past it the one not seen for longest is forgotten. */
  readonly keysMax: number;
  readonly clock: Clock;
}

/** Fractions of milliseconds do not add up exactly; what is less is no wait. */
const roundingMs = 0.001;

/**
 * How often each key may do something: `count` at once, then one every `perMs / count`.
 *
 * Spec: the Generic Cell Rate Algorithm (ITU-T I.371): one number a key, the time at which its
 * bucket would be empty again.
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

  /** Takes one and answers 0, or takes nothing and answers how many ms to wait for the next. */
  take(key: string): number {
    const now = this.#clock();
    // Never past a full bucket: a clock set back must not lock anybody out for longer.
    const emptyAt = Math.min(Math.max(this.#emptyAt.get(key) ?? now, now), now + this.#burstMs);
    const waitMs = emptyAt + this.#intervalMs - this.#burstMs - now;
    const isFull = waitMs > roundingMs;
    this.#emptyAt.set(key, isFull ? emptyAt : emptyAt + this.#intervalMs);
    return isFull ? waitMs : 0;
  }
}
