import type { Clock } from '../../clock.js';
import { Failure } from '../../errors.js';
import { TokenBucket } from '../../util/token-bucket.js';
import type { ClientAddress } from '../client-ip.js';
import { toIpKey } from '../ip-key.js';
import { abortRate } from './limits.js';

/** Maximum number of IP keys whose aborted requests are counted. */
const ipKeysMax = 10_000;

/**
 * Limits how many requests a client behind a proxy may abort before the response, per IP key. For direct
 * connections Node limits stream resets per connection. A proxy sends the requests of many clients on each
 * connection, so that one client over this limit would end the streams of all; it is lifted there.
 */
export class AbortLimiter {
  readonly #bucket: TokenBucket;

  constructor(monotonicClock: Clock) {
    this.#bucket = new TokenBucket({ ...abortRate, keysMax: ipKeysMax, clock: monotonicClock });
  }

  /** Counts a request that its client has aborted, unless the address of the client is unknown. */
  countAborted({ ip, problem }: ClientAddress): void {
    if (problem === undefined) this.#bucket.take(toIpKey(ip));
  }

  /** Throws `too_many_requests` while a client has aborted too many requests. */
  check({ ip }: ClientAddress): void {
    const retryAfterMs = this.#bucket.peek(toIpKey(ip));
    if (retryAfterMs === 0) return;
    const message = 'Cannot answer now: this address has aborted too many requests';
    throw new Failure('too_many_requests', message, { retryAfterMs });
  }
}
