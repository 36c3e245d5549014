import { performance } from 'node:perf_hooks';
import type { Clock } from '../clock.js';
import { tooManyRequests } from '../errors.js';
import type { Client } from '../http/client.js';
import { toNetworkKey } from '../http/ip-key.js';
import type { Audit } from '../logging/audit.js';
import { type Rate, TokenBucket } from '../util/token-bucket.js';

/** The message of the failure when a rate is exceeded, by the name of the rate. */
const messages = {
  login: 'Cannot log in: too many logins from this address',
  token: 'Cannot refresh: too many refreshes from this address',
  streamToken: 'Cannot make stream token: too many for this user',
  streamOpen: 'Cannot open stream: too many opened from this address',
  invalidToken: 'Cannot authenticate: too many invalid tokens from this address',
} as const;

export type RateName = keyof typeof messages;

/** The buckets of a rate: one per user or IP key, and one per IPv6 /48. */
interface RateBuckets {
  readonly byKey: TokenBucket;
  readonly byNetwork: TokenBucket;
}

/** The rate of an IPv6 /48, as a multiple of the rate of each of its /64s. */
const networkFactor = 10;

export interface RateLimiterOptions {
  readonly rates: Readonly<Record<RateName, Rate>>;
  readonly audit: Audit;
  /** Keys kept per rate. Default 100,000. */
  readonly keysMax?: number;
  /** Returns milliseconds, of which only differences matter. Default: `performance.now`. */
  readonly monotonicClock?: Clock;
}

/**
 * Limits expensive operations per user, or per IP key and IPv6 /48; failed requests count too. State is in
 * memory and per process, so the effective rate is the configured rate times the number of processes.
 */
export class RateLimiter {
  readonly #audit: Audit;
  readonly #buckets: Readonly<Record<RateName, RateBuckets>>;

  constructor({
    rates,
    audit,
    keysMax = 100_000,
    monotonicClock = () => performance.now(),
  }: RateLimiterOptions) {
    const createBuckets = ({ count, perMs }: Rate): RateBuckets => ({
      byKey: new TokenBucket({ count, perMs, keysMax, clock: monotonicClock }),
      byNetwork: new TokenBucket({
        ...{ count: count * networkFactor, perMs, keysMax, clock: monotonicClock },
      }),
    });
    this.#audit = audit;
    this.#buckets = {
      login: createBuckets(rates.login),
      token: createBuckets(rates.token),
      streamToken: createBuckets(rates.streamToken),
      streamOpen: createBuckets(rates.streamOpen),
      invalidToken: createBuckets(rates.invalidToken),
    };
  }

  /**
   * Counts a request of `userId` or, without it, of the IP key. Throws `too_many_requests` over the rate.
   * Returns a function that undoes the count, for rates that count only failures.
   */
  admit(name: RateName, client: Client, userId?: string): () => void {
    const { byKey, byNetwork } = this.#buckets[name];
    const key = userId ?? client.ipKey;
    const networkKey = userId === undefined ? toNetworkKey(client.ipKey) : undefined;
    // The network is counted first, so that a network over its rate adds no keys that evict others.
    const networkWaitMs = networkKey === undefined ? 0 : byNetwork.take(networkKey);
    const waitMs = networkWaitMs > 0 ? networkWaitMs : byKey.take(key);
    if (waitMs === 0) {
      return () => {
        byKey.giveBack(key);
        if (networkKey !== undefined) byNetwork.giveBack(networkKey);
      };
    }
    if (networkKey !== undefined && networkWaitMs === 0) byNetwork.giveBack(networkKey);
    const who = userId === undefined ? {} : { userId };
    this.#audit.record('excess_rate_limit_exceeded', { client, reason: name, ...who });
    throw tooManyRequests(messages[name], waitMs);
  }
}
