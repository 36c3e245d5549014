import { createHmac, randomBytes } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import type { Clock } from '../clock.js';
import { Gate, GateShut, type GuessOutcome, type Permit } from './attempt-limiter.js';
import { tooMany } from './rates.js';

export interface ThrottleOptions {
  /** Wrong passwords in a row for one user from one place that cost nothing. */
  readonly freeFailures: number;
  readonly delayMaxMs: number;
  /** Keys remembered by each gate. Default 100,000. */
  readonly keysMax?: number;
  /** Only its differences matter. The default cannot be set back. */
  readonly clock?: Clock;
}

export interface GuessOptions {
  readonly userKey: string;
  readonly ipKey: string;
  /** Whether that user has a session from that place; asked only when it matters. */
  readonly hasSession: () => Promise<boolean>;
  readonly signal?: AbortSignal;
}

/** One password that may be tried. */
export interface Guess {
  /** Wrong guesses in a row before this one, from the same place. */
  readonly failures: number;
  /** Only the first call counts. Answers whether this guess shut a gate. */
  done(outcome: GuessOutcome): boolean;
}

const second = 1000;
const minute = 60 * second;
const hour = 60 * minute;
const everywhereFreeFailures = 20;
/** NIST SP 800-63B: no more than 100 wrong guesses in a row for an account. */
const hardStop = { failures: 100, delayMs: 15 * minute };

/**
 * Who may try a password now. In memory and by process: limits multiply by the number of processes.
 * Keys are HMACs under a key that nobody knows, so no user's input is kept.
 */
export class Throttle {
  readonly #byUserAndPlace: Gate;
  readonly #byUser: Gate;
  readonly #key = randomBytes(32);

  constructor(options: ThrottleOptions) {
    const { freeFailures, delayMaxMs } = options;
    const clock = options.clock ?? (() => performance.now());
    const shared = { keysMax: options.keysMax ?? 100_000, clock };
    this.#byUserAndPlace = new Gate({ freeFailures, delayMaxMs, forgetAfterMs: hour, ...shared });
    // Forgets more slowly than it opens: waiting must not be the faster way to guess.
    this.#byUser = new Gate({
      freeFailures: everywhereFreeFailures,
      delayMaxMs: Math.min(delayMaxMs, minute),
      hardStop,
      forgetAfterMs: 24 * hour,
      ...shared,
    });
  }

  /**
   * Takes the right to try one password, to be given back with `done`. Waits only for guesses that
   * are under way. Throws `too_many_requests`, or the reason of `signal`.
   *
   * Two gates: one for the user from this place, and one for the user from anywhere, against
   * guesses spread over many addresses. The second lets a place pass that has a session of the
   * user, so that nobody can lock the owner out.
   */
  async guess({ userKey, ipKey, hasSession, signal }: GuessOptions): Promise<Guess> {
    const permits: Permit[] = [];
    const done = (outcome: GuessOutcome) =>
      permits.map((permit) => permit.done(outcome)).includes(true);
    try {
      const here = this.#hide(`${userKey}\0${ipKey}`);
      permits.push(await this.#byUserAndPlace.enter(here, signal));
      const anywhere = this.#hide(userKey);
      if (this.#byUser.isOpen(anywhere) || !(await hasSession())) {
        permits.push(await this.#byUser.enter(anywhere, signal));
      }
    } catch (cause) {
      done('unknown');
      if (!(cause instanceof GateShut)) throw cause;
      throw tooMany('Cannot log in: too many wrong passwords', cause.waitMs);
    }
    return { failures: permits[0]?.failures ?? 0, done };
  }

  #hide(key: string): string {
    return createHmac('sha256', this.#key).update(key).digest('base64').slice(0, 22);
  }
}
