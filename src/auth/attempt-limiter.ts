import type { Clock } from '../clock.js';

/** `unknown`: the password was not verified (no thread was free, the client disconnected). */
export type AttemptOutcome = 'right' | 'wrong' | 'unknown';

/** A permit to try one password. */
export interface Attempt {
  /** Consecutive wrong passwords before this attempt. */
  readonly failures: number;
  /**
   * Records the outcome and releases the permit. Returns whether the outcome blocks the key. Later
   * calls change nothing and return false.
   */
  settle(outcome: AttemptOutcome): boolean;
}

/** Thrown by `AttemptLimiter.begin`. The caller may try again after `waitMs`. */
export class AttemptRefused extends Error {
  readonly waitMs: number;

  constructor(waitMs: number) {
    super('Cannot begin attempt: too many failures, or too many attempts waiting');
    this.waitMs = waitMs;
  }
}

export interface AttemptLimiterOptions {
  /**
   * From this many consecutive failures on, each failure blocks the key: the first one for 1 s, each later
   * one for twice as long as the one before, up to `delayMaxMs`.
   */
  readonly failuresBeforeDelay: number;
  readonly delayMaxMs: number;
  /** From `failures` consecutive failures on, each failure blocks the key for `delayMs` instead. */
  readonly hardStop?: { readonly failures: number; readonly delayMs: number };
  /** The failures of a key are reset when this time has passed since the last one. */
  readonly forgetAfterMs: number;
  /** Number of keys kept. Over the limit, the least recently used key without attempts is evicted. */
  readonly keysMax: number;
  readonly monotonicClock: Clock;
}

interface Entry {
  failures: number;
  pending: number;
  blockedUntil: number;
  failedAt: number;
  readonly waiters: Set<Waiter>;
}

interface Waiter {
  grant(attempt: Attempt): void;
  refuse(refusal: AttemptRefused): void;
}

const firstDelayMs = 1000;
const waitersMax = 32;

/**
 * Limits password attempts per key. An attempt is counted before it is verified, so that parallel
 * attempts count like sequential ones: at most as many attempts are pending as failures are left before
 * delays start, or one when none are left. Further attempts wait for the outcome of a pending attempt,
 * so parallel attempts with the right password all succeed. At most 32 attempts wait per key; any others
 * are rejected with a `waitMs` of 1 s.
 *
 * Servers that counted attempts only after the check had vulnerabilities: GHSA-7h8m-vrxx-vr4m and
 * CVE-2026-110861.
 */
export class AttemptLimiter {
  readonly #entries = new Map<string, Entry>();
  readonly #options: AttemptLimiterOptions;

  constructor(options: AttemptLimiterOptions) {
    this.#options = options;
  }

  /** Number of keys kept. */
  get size(): number {
    return this.#entries.size;
  }

  /** Whether `begin` would neither wait nor throw. */
  isAvailable(key: string): boolean {
    const entry = this.#entries.get(key);
    if (entry === undefined) return true;
    this.#resetIfExpired(entry);
    return this.#blockedMs(entry) === 0 && entry.pending < this.#concurrencyMax(entry);
  }

  /**
   * Acquires a permit. Rejects with `AttemptRefused`, or with the reason of `signal` when it aborts before
   * the permit is free.
   */
  async begin(key: string, signal?: AbortSignal): Promise<Attempt> {
    signal?.throwIfAborted();
    const entry = this.#getEntry(key);
    const attempt = this.#tryBegin(key, entry);
    if (attempt !== undefined) return attempt;
    if (entry.waiters.size >= waitersMax) throw new AttemptRefused(firstDelayMs);
    return new Promise<Attempt>((resolve, reject) => {
      const onAbort = () => {
        entry.waiters.delete(waiter);
        reject(signal?.reason);
      };
      const waiter: Waiter = {
        grant(given) {
          signal?.removeEventListener('abort', onAbort);
          resolve(given);
        },
        refuse(refusal) {
          signal?.removeEventListener('abort', onAbort);
          reject(refusal);
        },
      };
      entry.waiters.add(waiter);
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** Returns undefined when all permits are taken. Throws `AttemptRefused`. */
  #tryBegin(key: string, entry: Entry): Attempt | undefined {
    this.#resetIfExpired(entry);
    const blockedMs = this.#blockedMs(entry);
    if (blockedMs > 0) throw new AttemptRefused(blockedMs);
    if (entry.pending >= this.#concurrencyMax(entry)) return undefined;
    entry.pending += 1;
    let isSettled = false;
    return {
      failures: entry.failures,
      settle: (outcome) => {
        if (isSettled) return false;
        isSettled = true;
        return this.#settle(key, entry, outcome);
      },
    };
  }

  /** Returns whether the outcome blocks the key. */
  #settle(key: string, entry: Entry, outcome: AttemptOutcome): boolean {
    entry.pending -= 1;
    if (outcome === 'right') {
      entry.failures = 0;
      entry.blockedUntil = 0;
    }
    const isBlocking = outcome === 'wrong' && this.#countFailure(entry);
    this.#grantWaiters(key, entry);
    const isIdle = entry.pending === 0 && entry.waiters.size === 0;
    if (isIdle && entry.failures === 0 && this.#entries.get(key) === entry) {
      this.#entries.delete(key);
    }
    return isBlocking;
  }

  /** Counts a failure. Returns whether it blocks the key. */
  #countFailure(entry: Entry): boolean {
    const { failuresBeforeDelay, delayMaxMs, hardStop, monotonicClock } = this.#options;
    entry.failures += 1;
    entry.failedAt = monotonicClock();
    if (entry.failures < failuresBeforeDelay) return false;
    const doubled = firstDelayMs * 2 ** (entry.failures - failuresBeforeDelay);
    const isHardStop = hardStop !== undefined && entry.failures >= hardStop.failures;
    entry.blockedUntil =
      entry.failedAt + (isHardStop ? hardStop.delayMs : Math.min(delayMaxMs, doubled));
    return true;
  }

  #grantWaiters(key: string, entry: Entry): void {
    for (const waiter of entry.waiters) {
      try {
        const attempt = this.#tryBegin(key, entry);
        if (attempt === undefined) return;
        entry.waiters.delete(waiter);
        waiter.grant(attempt);
      } catch (refusal) {
        if (!(refusal instanceof AttemptRefused)) throw refusal;
        entry.waiters.delete(waiter);
        waiter.refuse(refusal);
      }
    }
  }

  #concurrencyMax({ failures }: Entry): number {
    return Math.max(1, this.#options.failuresBeforeDelay - failures);
  }

  #blockedMs({ blockedUntil }: Entry): number {
    const { monotonicClock, delayMaxMs, hardStop } = this.#options;
    // At most the longest delay, so that a clock set back does not lock a user out.
    const longestMs = Math.max(delayMaxMs, hardStop?.delayMs ?? 0);
    return Math.min(Math.max(0, blockedUntil - monotonicClock()), longestMs);
  }

  #resetIfExpired(entry: Entry): void {
    if (this.#options.monotonicClock() - entry.failedAt < this.#options.forgetAfterMs) return;
    entry.failures = 0;
    entry.blockedUntil = 0;
  }

  #getEntry(key: string): Entry {
    const known = this.#entries.get(key);
    const entry = known ?? {
      failures: 0,
      pending: 0,
      blockedUntil: 0,
      failedAt: this.#options.monotonicClock(),
      waiters: new Set<Waiter>(),
    };
    this.#entries.delete(key); // Reinserted, so that the Map is in the order of last use.
    this.#entries.set(key, entry);
    this.#evict();
    return entry;
  }

  /** Evicts the least recently used keys, except those with pending or waiting attempts. */
  #evict(): void {
    let excess = this.#entries.size - this.#options.keysMax;
    for (const [key, entry] of this.#entries) {
      if (excess <= 0) return;
      if (entry.pending > 0 || entry.waiters.size > 0) continue;
      this.#entries.delete(key);
      excess -= 1;
    }
  }
}
