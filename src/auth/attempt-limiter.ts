import type { Clock } from '../clock.js';

/** `unknown`: the guess was not looked at (no thread was free, the client left). */
export type GuessOutcome = 'right' | 'wrong' | 'unknown';

/** The right to try one password. */
export interface Permit {
  /** Wrong guesses in a row before this one. */
  readonly failures: number;
  /** Gives the permit back; only the first call counts. Answers whether it shut the gate. */
  done(outcome: GuessOutcome): boolean;
}

/** Thrown by `Gate.enter`: nothing may be tried for `waitMs`. */
export class GateShut extends Error {
  readonly waitMs: number;

  constructor(waitMs: number) {
    super('Cannot enter: the gate is shut');
    this.waitMs = waitMs;
  }
}

export interface GateOptions {
  /** Wrong guesses in a row that cost nothing. From there on each doubles the wait, from 1 s. */
  readonly freeFailures: number;
  readonly delayMaxMs: number;
  /** From this many in a row each one costs `delayMs`. */
  readonly hardStop?: { readonly failures: number; readonly delayMs: number };
  /** After so long without a wrong guess the key starts anew. */
  readonly forgetAfterMs: number;
  /** How many keys are remembered; past it the one not seen for longest is forgotten. */
  readonly keysMax: number;
  readonly clock: Clock;
}

interface Entry {
  failures: number;
  pending: number;
  shutUntil: number;
  failedAt: number;
  readonly waiters: Set<Waiter>;
}

interface Waiter {
  enter(permit: Permit): void;
  refuse(shut: GateShut): void;
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
export class Gate {
  readonly #entries = new Map<string, Entry>();
  readonly #options: GateOptions;

  constructor(options: GateOptions) {
    this.#options = options;
  }

  /** How many keys are remembered. */
  get size(): number {
    return this.#entries.size;
  }

  /** Whether `enter` would neither wait nor throw. */
  isOpen(key: string): boolean {
    const entry = this.#entries.get(key);
    if (entry === undefined) return true;
    this.#age(entry);
    return this.#shutMs(entry) === 0 && entry.pending < this.#permits(entry);
  }

  /** Throws `GateShut`, or the reason of `signal` when it aborts while waiting. */
  async enter(key: string, signal?: AbortSignal): Promise<Permit> {
    signal?.throwIfAborted();
    const entry = this.#entry(key);
    const permit = this.#admit(key, entry);
    if (permit !== undefined) return permit;
    if (entry.waiters.size >= waitersMax) throw new GateShut(firstDelayMs);
    return new Promise<Permit>((resolve, reject) => {
      const leave = () => {
        entry.waiters.delete(waiter);
        reject(signal?.reason);
      };
      const waiter: Waiter = {
        enter(given) {
          signal?.removeEventListener('abort', leave);
          resolve(given);
        },
        refuse(shut) {
          signal?.removeEventListener('abort', leave);
          reject(shut);
        },
      };
      entry.waiters.add(waiter);
      signal?.addEventListener('abort', leave, { once: true });
    });
  }

  /** Nothing when all permits are taken. Throws `GateShut`. */
  #admit(key: string, entry: Entry): Permit | undefined {
    this.#age(entry);
    const shutMs = this.#shutMs(entry);
    if (shutMs > 0) throw new GateShut(shutMs);
    if (entry.pending >= this.#permits(entry)) return undefined;
    entry.pending += 1;
    let isDone = false;
    return {
      failures: entry.failures,
      done: (outcome) => {
        if (isDone) return false;
        isDone = true;
        return this.#settle(key, entry, outcome);
      },
    };
  }

  #settle(key: string, entry: Entry, outcome: GuessOutcome): boolean {
    entry.pending -= 1;
    if (outcome === 'right') {
      entry.failures = 0;
      entry.shutUntil = 0;
    }
    const shuts = outcome === 'wrong' && this.#fail(entry);
    this.#wake(key, entry);
    const isIdle = entry.pending === 0 && entry.waiters.size === 0;
    if (isIdle && entry.failures === 0 && this.#entries.get(key) === entry) {
      this.#entries.delete(key);
    }
    return shuts;
  }

  #fail(entry: Entry): boolean {
    const { freeFailures, delayMaxMs, hardStop, clock } = this.#options;
    entry.failures += 1;
    entry.failedAt = clock();
    if (entry.failures < freeFailures) return false;
    const doubled = firstDelayMs * 2 ** (entry.failures - freeFailures);
    const isHard = hardStop !== undefined && entry.failures >= hardStop.failures;
    entry.shutUntil = entry.failedAt + (isHard ? hardStop.delayMs : Math.min(delayMaxMs, doubled));
    return true;
  }

  #wake(key: string, entry: Entry): void {
    for (const waiter of entry.waiters) {
      try {
        const permit = this.#admit(key, entry);
        if (permit === undefined) return;
        entry.waiters.delete(waiter);
        waiter.enter(permit);
      } catch (shut) {
        if (!(shut instanceof GateShut)) throw shut;
        entry.waiters.delete(waiter);
        waiter.refuse(shut);
      }
    }
  }

  #permits({ failures }: Entry): number {
    return Math.max(1, this.#options.freeFailures - failures);
  }

  #shutMs({ shutUntil }: Entry): number {
    const { clock, delayMaxMs, hardStop } = this.#options;
    // Never longer than the longest delay: a clock set back must not lock anybody out.
    const longestMs = Math.max(delayMaxMs, hardStop?.delayMs ?? 0);
    return Math.min(Math.max(0, shutUntil - clock()), longestMs);
  }

  #age(entry: Entry): void {
    if (this.#options.clock() - entry.failedAt < this.#options.forgetAfterMs) return;
    entry.failures = 0;
    entry.shutUntil = 0;
  }

  #entry(key: string): Entry {
    const known = this.#entries.get(key);
    const entry = known ?? {
      failures: 0,
      pending: 0,
      shutUntil: 0,
      failedAt: this.#options.clock(),
      waiters: new Set<Waiter>(),
    };
    this.#entries.delete(key); // Taken out and put in again: the order is that of the last use.
    this.#entries.set(key, entry);
    this.#forget();
    return entry;
  }

  /** The oldest go first, except those with a guess under way, which must come back to them. */
  #forget(): void {
    let excess = this.#entries.size - this.#options.keysMax;
    for (const [key, entry] of this.#entries) {
      if (excess <= 0) return;
      if (entry.pending > 0 || entry.waiters.size > 0) continue;
      this.#entries.delete(key);
      excess -= 1;
    }
  }
}
