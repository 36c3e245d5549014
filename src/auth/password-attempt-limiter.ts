import { createHmac, randomBytes } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import type { Clock } from '../clock.js';
import { tooManyRequests } from '../errors.js';
import { toNetworkKey } from '../http/ip-key.js';
import {
  type Attempt,
  AttemptLimiter,
  type AttemptOutcome,
  AttemptRefused,
} from './attempt-limiter.js';

export interface PasswordAttemptLimiterOptions {
  /** Consecutive wrong passwords per user and IP key before delays start. */
  readonly failuresBeforeDelay: number;
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
   * Whether the user has a session from this IP key. Called at most once, and only when the limiter per user
   * or the one per user and IPv6 /48 has no free permit.
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
/** Less than `userFailuresBeforeDelay`, so that failures in one network do not delay the user in others. */
const networkFailuresBeforeDelay = 10;
const userFailuresBeforeDelay = 20;
/** NIST SP 800-63B limits consecutive wrong passwords to 100 per account. */
const hardStop = { failures: 100, delayMs: 15 * minuteMs };

/**
 * Limits wrong passwords, against guessing, per user and IP key, per user and IPv6 /48, and per user.
 * `RateLimiter` limits all requests, right passwords too. State is in memory and per process, so the
 * effective limit is the configured limit times the number of processes. Names and addresses are stored as
 * HMACs under a random key, never in plain text.
 */
export class PasswordAttemptLimiter {
  readonly #byUserAndIp: AttemptLimiter;
  readonly #byUserAndNetwork: AttemptLimiter;
  readonly #byUser: AttemptLimiter;
  readonly #hmacKey = randomBytes(32);

  constructor(options: PasswordAttemptLimiterOptions) {
    const { failuresBeforeDelay, delayMaxMs } = options;
    const monotonicClock = options.monotonicClock ?? (() => performance.now());
    const commonOptions = { keysMax: options.keysMax ?? 100_000, monotonicClock };
    const addressOptions = { delayMaxMs, forgetAfterMs: hourMs, ...commonOptions };
    this.#byUserAndIp = new AttemptLimiter({ failuresBeforeDelay, ...addressOptions });
    this.#byUserAndNetwork = new AttemptLimiter({
      failuresBeforeDelay: Math.max(networkFailuresBeforeDelay, failuresBeforeDelay),
      ...addressOptions,
    });
    // Failures are kept for longer than any delay, so that an attacker who waits for a reset gains no attempts.
    this.#byUser = new AttemptLimiter({
      failuresBeforeDelay: userFailuresBeforeDelay,
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
   * The limiter per user and IP key always applies. The limiters per user and IPv6 /48 and per user stop
   * attempts from many addresses. When one of these two has no free permit, both are skipped for an IP key
   * from which the user has a session, so that an attacker cannot lock the owner out.
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
      if (!(cause instanceof AttemptRefused)) throw cause;
      throw tooManyRequests('Cannot log in: too many wrong passwords', cause.waitMs);
    }
    return { failures: attempts[0]?.failures ?? 0, settle };
  }

  /** Returns the limiters, with their keys, that also count attempts from other IP keys. */
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
