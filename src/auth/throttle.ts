import { createHmac, randomBytes } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import type { Clock } from '../clock.js';
import { tooManyRequests } from '../errors.js';
import { toNetworkKey } from '../http/ip-key.js';
import { type Attempt, AttemptLimiter, type AttemptOutcome, Throttled } from './attempt-limiter.js';

export interface ThrottleOptions {
  /** Consecutive wrong passwords per user and IP key before delays start. */
  readonly freeFailures: number;
  readonly delayMaxMs: number;
  /** Keys kept per limiter. Default 100,000. */
  readonly keysMax?: number;
  /** Returns milliseconds, of which only differences matter. Default: `performance.now`. */
  readonly monotonicClock?: Clock;
}

export interface PasswordAttemptOptions {
  readonly userKey: string;
  readonly ipKey: string;
  /**
   * Whether the user has a session from this IP key. Called, once at most, only when the limiter per user,
   * or per user and IPv6 /48, has no free permit.
   */
  readonly hasSession: () => Promise<boolean>;
  readonly signal?: AbortSignal;
}

/** A permit to try one password. */
export interface PasswordAttempt {
  /** Consecutive wrong passwords before this attempt, from the same IP key. */
  readonly failures: number;
  /**
   * Records the outcome and releases the permit. Returns whether the outcome blocks a key. Later calls
   * change nothing and return false.
   */
  settle(outcome: AttemptOutcome): boolean;
}

const secondMs = 1000;
const minuteMs = 60 * secondMs;
const hourMs = 60 * minuteMs;
/** Less than `userFreeFailures`, so that one network alone does not make the user wait elsewhere. */
const networkFreeFailures = 10;
const userFreeFailures = 20;
/** NIST SP 800-63B: at most 100 consecutive wrong passwords per account. */
const hardStop = { failures: 100, delayMs: 15 * minuteMs };

/**
 * Limits password attempts per user and IP key, per user and IPv6 /48, and per user. State is in memory and
 * per process, so the effective limit is the configured limit times the number of processes. The limiters
 * get HMACs under a random key instead of names and addresses, so no user input is stored.
 */
export class Throttle {
  readonly #byUserAndIp: AttemptLimiter;
  readonly #byUserAndNetwork: AttemptLimiter;
  readonly #byUser: AttemptLimiter;
  readonly #hmacKey = randomBytes(32);

  constructor(options: ThrottleOptions) {
    const { freeFailures, delayMaxMs } = options;
    const monotonicClock = options.monotonicClock ?? (() => performance.now());
    const commonOptions = { keysMax: options.keysMax ?? 100_000, monotonicClock };
    const addressOptions = { delayMaxMs, forgetAfterMs: hourMs, ...commonOptions };
    this.#byUserAndIp = new AttemptLimiter({ freeFailures, ...addressOptions });
    this.#byUserAndNetwork = new AttemptLimiter({
      freeFailures: Math.max(networkFreeFailures, freeFailures),
      ...addressOptions,
    });
    // Failures are kept longer than any delay, so that waiting for a reset gains no attempts.
    this.#byUser = new AttemptLimiter({
      freeFailures: userFreeFailures,
      delayMaxMs: Math.min(delayMaxMs, minuteMs),
      hardStop,
      forgetAfterMs: 24 * hourMs,
      ...commonOptions,
    });
  }

  /**
   * Acquires a permit to try one password; `settle` releases it. Waits only for the outcome of
   * pending attempts. Throws `too_many_requests`, or the reason of `signal`.
   *
   * Three limiters apply: one per user and IP key, one per user and IPv6 /48, and one per user, against
   * attempts spread over many addresses. When one of the last two has no free permit, both are skipped for
   * an IP key with a session of the user, so that an attacker cannot lock the owner out.
   */
  async begin(options: PasswordAttemptOptions): Promise<PasswordAttempt> {
    const { userKey, ipKey, hasSession, signal } = options;
    const attempts: Attempt[] = [];
    const settle = (outcome: AttemptOutcome) =>
      attempts.map((attempt) => attempt.settle(outcome)).includes(true);
    try {
      const userIpKey = this.#hmac(`${userKey}\0${ipKey}`);
      attempts.push(await this.#byUserAndIp.begin(userIpKey, signal));
      const shared = this.#getSharedLimiters(userKey, ipKey);
      const areAvailable = shared.every(({ limiter, key }) => limiter.isAvailable(key));
      if (areAvailable || !(await hasSession())) {
        for (const { limiter, key } of shared) attempts.push(await limiter.begin(key, signal));
      }
    } catch (cause) {
      settle('unknown');
      if (!(cause instanceof Throttled)) throw cause;
      throw tooManyRequests('Cannot log in: too many wrong passwords', cause.waitMs);
    }
    return { failures: attempts[0]?.failures ?? 0, settle };
  }

  /** Returns the limiters that attempts from other IP keys count towards, too, and their keys. */
  #getSharedLimiters(userKey: string, ipKey: string) {
    const byUser = { limiter: this.#byUser, key: this.#hmac(userKey) };
    const networkKey = toNetworkKey(ipKey);
    if (networkKey === undefined) return [byUser];
    const key = this.#hmac(`${userKey}\0${networkKey}`);
    return [{ limiter: this.#byUserAndNetwork, key }, byUser];
  }

  #hmac(key: string): string {
    return createHmac('sha256', this.#hmacKey).update(key).digest('base64').slice(0, 22);
  }
}
