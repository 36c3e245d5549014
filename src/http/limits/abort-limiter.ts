import type { Clock } from '../../clock.js';
import { Failure } from '../../errors.js';
import { TokenBucket } from '../../util/token-bucket.js';
import type { ClientAddress } from '../client-ip.js';
import { toIpKey, toNetworkKey } from '../ip-key.js';
import { abortRate } from './limits.js';

/** Maximum number of IP keys, and of IPv6 /48s, whose aborted requests are counted. */
const keysMax = 10_000;
/** The rate of an IPv6 /48, as a multiple of the rate of each of its /64s. */
const networkFactor = 10;

/**
 * Limits how many requests a client behind a proxy may abort before the response, per IP key and per IPv6 /48.
 *
 * Without a proxy, Node limits the stream resets of each connection. Behind a proxy, Node's limit is disabled:
 * one connection of the proxy has the requests of many clients, so one client over the limit would end the
 * streams of all.
 */
export class AbortLimiter {
  readonly #byIpKey: TokenBucket;
  readonly #byNetwork: TokenBucket;

  constructor(monotonicClock: Clock) {
    const options = { ...abortRate, keysMax, clock: monotonicClock };
    this.#byIpKey = new TokenBucket(options);
    this.#byNetwork = new TokenBucket({ ...options, count: abortRate.count * networkFactor });
  }

  /** Counts a request that its client has aborted, unless the address of the client is unknown. */
  countAborted({ ip, problem }: ClientAddress): void {
    if (problem !== undefined) return;
    const ipKey = toIpKey(ip);
    const networkKey = toNetworkKey(ipKey);
    // The network comes first, so that over its rate it cannot evict other IP keys.
    if (networkKey === undefined || this.#byNetwork.take(networkKey) === 0)
      this.#byIpKey.take(ipKey);
  }

  /** Throws `too_many_requests` while a client has aborted too many requests. */
  check({ ip }: ClientAddress): void {
    const ipKey = toIpKey(ip);
    const networkKey = toNetworkKey(ipKey);
    const networkWaitMs = networkKey === undefined ? 0 : this.#byNetwork.peek(networkKey);
    const retryAfterMs = Math.max(networkWaitMs, this.#byIpKey.peek(ipKey));
    if (retryAfterMs === 0) return;
    const message = 'Cannot answer now: this address has aborted too many requests';
    throw new Failure('too_many_requests', message, { retryAfterMs });
  }
}
