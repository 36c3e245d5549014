import type { Clock } from '../clock.js';

/** `unknown`: the guess was not looked at (no thread was free, the client left). */
export type AttemptOutcome = 'right' | 'wrong' | 'unknown';

/** The right to try one password. */
export interface Attempt {
  /** Wrong guesses in a row before this one. */
  readonly failures: number;
  /** Gives the permit back; only the first call counts. Answers whether it shut the gate. */
  settle(outcome: AttemptOutcome): boolean;
}

/** Thrown by `Gate.enter`: nothing may be tried for `waitMs`. */
export class Throttled extends Error {
  readonly waitMs: number;

  constructor(waitMs: number) {
    super('Cannot attempt: throttled');
    this.waitMs = waitMs;
  }
}

export interface AttemptLimiterOptions {
  /** Wrong guesses in a row that cost nothing. From there on each doubles the wait, from 1 s. */
  readonly freeFailures: number;
  readonly delayMaxMs: number;
  /** From this many in a row each one costs `delayMs`. */
  readonly hardStop?: { readonly failures: number; readonly delayMs: number };
  /** After so long without a wrong guess the key starts anew. */
  readonly forgetAfterMs: number;
  /** How many keys are remembered; past it the one not seen for longest is forgotten. */
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
  refuse(refusal: Throttled): void;
}

const firstDelayMs = 1000;
const waitersMax = 32;

/**
 * Who may try a password now. A guess is charged before it is checked, so that guesses sent in
 * parallel count like guesses sent in turn: as many may be under way as there are free ones left,
 * and one when none are left. Who finds all taken waits for the outcome of another: parallel right
 * ones all pass. At most 32 wait for a key; later ones are refused.
 *
 * Idea: GHSA-7h8m-vrxx-vr4m and CVE-2026-110861, where counting after the check was the hole.
 */
export class AttemptLimiter {
  readonly #entries = new Map<string, Entry>();
  readonly #options: AttemptLimiterOptions;

  constructor(options: AttemptLimiterOptions) {
    this.#options = options;
  }

  /** How many keys are remembered. */
  get size(): number {
    return this.#entries.size;
  }

  /** Whether `enter` would neither wait nor throw. */
  isAvailable(key: string): boolean {
    const entry = this.#entries.get(key);
    if (entry === undefined) return true;
    this.#expire(entry);
    return this.#blockedMs(entry) === 0 && entry.pending < this.#concurrencyMax(entry);
  }

  /** Throws `GateShut`, or the reason of `signal` when it aborts while waiting. */
  async begin(key: string, signal?: AbortSignal): Promise<Attempt> {
    signal?.throwIfAborted();
    const entry = this.#entry(key);
    const attempt = this.#tryBegin(key, entry);
    if (attempt !== undefined) return attempt;
    if (entry.waiters.size >= waitersMax) throw new Throttled(firstDelayMs);
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
        refuse(shut) {
          signal?.removeEventListener('abort', onAbort);
          reject(shut);
        },
      };
      entry.waiters.add(waiter);
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** Nothing when all permits are taken. Throws `GateShut`. */
  #tryBegin(key: string, entry: Entry): Attempt | undefined {
    this.#expire(entry);
    const blockedMs = this.#blockedMs(entry);
    if (blockedMs > 0) throw new Throttled(blockedMs);
    if (entry.pending >= this.#concurrencyMax(entry)) return undefined;
    entry.pending += 1;
    let isDone = false;
    return {
      failures: entry.failures,
      settle: (outcome) => {
        if (isDone) return false;
        isDone = true;
        return this.#settle(key, entry, outcome);
      },
    };
  }

  #settle(key: string, entry: Entry, outcome: AttemptOutcome): boolean {
    entry.pending -= 1;
    if (outcome === 'right') {
      entry.failures = 0;
      entry.blockedUntil = 0;
    }
    const isBlocking = outcome === 'wrong' && this.#fail(entry);
    this.#grantWaiting(key, entry);
    const isIdle = entry.pending === 0 && entry.waiters.size === 0;
    if (isIdle && entry.failures === 0 && this.#entries.get(key) === entry) {
      this.#entries.delete(key);
    }
    return isBlocking;
  }

  #fail(entry: Entry): boolean {
    const { freeFailures, delayMaxMs, hardStop, monotonicClock } = this.#options;
    entry.failures += 1;
    entry.failedAt = monotonicClock();
    if (entry.failures < freeFailures) return false;
    const doubled = firstDelayMs * 2 ** (entry.failures - freeFailures);
    const isHard = hardStop !== undefined && entry.failures >= hardStop.failures;
    entry.blockedUntil =
      entry.failedAt + (isHard ? hardStop.delayMs : Math.min(delayMaxMs, doubled));
    return true;
  }

  #grantWaiting(key: string, entry: Entry): void {
    for (const waiter of entry.waiters) {
      try {
        const attempt = this.#tryBegin(key, entry);
        if (attempt === undefined) return;
        entry.waiters.delete(waiter);
        waiter.grant(attempt);
      } catch (shut) {
        if (!(shut instanceof Throttled)) throw shut;
        entry.waiters.delete(waiter);
        waiter.refuse(shut);
      }
    }
  }

  #concurrencyMax({ failures }: Entry): number {
    return Math.max(1, this.#options.freeFailures - failures);
  }

  #blockedMs({ blockedUntil }: Entry): number {
    const { monotonicClock, delayMaxMs, hardStop } = this.#options;
    // Never longer than the longest delay: a clock set back must not lock anybody out.
    const longestMs = Math.max(delayMaxMs, hardStop?.delayMs ?? 0);
    return Math.min(Math.max(0, blockedUntil - monotonicClock()), longestMs);
  }

  #expire(entry: Entry): void {
    if (this.#options.monotonicClock() - entry.failedAt < this.#options.forgetAfterMs) return;
    entry.failures = 0;
    entry.blockedUntil = 0;
  }

  #entry(key: string): Entry {
    const known = this.#entries.get(key);
    const entry = known ?? {
      failures: 0,
      pending: 0,
      blockedUntil: 0,
      failedAt: this.#options.monotonicClock(),
      waiters: new Set<Waiter>(),
    };
    this.#entries.delete(key); // Taken out and put in again: the order is that of the last use.
    this.#entries.set(key, entry);
    this.#evict();
    return entry;
  }

  /** The oldest go first, except those with a guess under way, which must come back to them. */
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
