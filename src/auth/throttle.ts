import { createHmac, randomBytes } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import type { Clock } from '../clock.js';
import { type Attempt, AttemptLimiter, type AttemptOutcome, Throttled } from './attempt-limiter.js';
import { tooManyRequests } from './rate-limiter.js';

export interface ThrottleOptions {
  /** Wrong passwords in a row for one user from one place that cost nothing. */
  readonly freeFailures: number;
  readonly delayMaxMs: number;
  /** Keys remembered by each gate. Default 100,000. */
  readonly keysMax?: number;
  /** Only its differences matter. The default cannot be set back. */
  readonly monotonicClock?: Clock;
}

export interface PasswordAttemptOptions {
  readonly userKey: string;
  readonly ipKey: string;
  /** Whether that user has a session from that place; asked only when it matters. */
  readonly hasSession: () => Promise<boolean>;
  readonly signal?: AbortSignal;
}

/** One password that may be tried. */
export interface PasswordAttempt {
  /** Wrong guesses in a row before this one, from the same place. */
  readonly failures: number;
  /** Only the first call counts. Answers whether this guess shut a gate. */
  settle(outcome: AttemptOutcome): boolean;
}

const second = 1000;
const minute = 60 * second;
const hour = 60 * minute;
const userFreeFailures = 20;
/** NIST SP 800-63B: no more than 100 wrong guesses in a row for an account. */
const hardStop = { failures: 100, delayMs: 15 * minute };

/**
 * Who may try a password now. In memory and by process: limits multiply by the number of processes.
 * Keys are HMACs under a key that nobody knows, so no user's input is kept.
 */
export class Throttle {
  readonly #byUserAndIp: AttemptLimiter;
  readonly #byUser: AttemptLimiter;
  readonly #hmacKey = randomBytes(32);

  constructor(options: ThrottleOptions) {
    const { freeFailures, delayMaxMs } = options;
    const monotonicClock = options.monotonicClock ?? (() => performance.now());
    const shared = { keysMax: options.keysMax ?? 100_000, monotonicClock };
    this.#byUserAndIp = new AttemptLimiter({
      freeFailures,
      delayMaxMs,
      forgetAfterMs: hour,
      ...shared,
    });
    // Forgets more slowly than it opens: waiting must not be the faster way to guess.
    this.#byUser = new AttemptLimiter({
      freeFailures: userFreeFailures,
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
  async begin({
    userKey,
    ipKey,
    hasSession,
    signal,
  }: PasswordAttemptOptions): Promise<PasswordAttempt> {
    const attempts: Attempt[] = [];
    const settle = (outcome: AttemptOutcome) =>
      attempts.map((attempt) => attempt.settle(outcome)).includes(true);
    try {
      const userIpKey = this.#hmac(`${userKey}\0${ipKey}`);
      attempts.push(await this.#byUserAndIp.begin(userIpKey, signal));
      const accountKey = this.#hmac(userKey);
      if (this.#byUser.isAvailable(accountKey) || !(await hasSession())) {
        attempts.push(await this.#byUser.begin(accountKey, signal));
      }
    } catch (cause) {
      settle('unknown');
      if (!(cause instanceof Throttled)) throw cause;
      throw tooManyRequests('Cannot log in: too many wrong passwords', cause.waitMs);
    }
    return { failures: attempts[0]?.failures ?? 0, settle };
  }

  #hmac(key: string): string {
    return createHmac('sha256', this.#hmacKey).update(key).digest('base64').slice(0, 22);
  }
}
