import type { Clock } from '../clock.js';
import { LruMap } from '../util/lru-map.js';
import { type Rate, TokenBucket } from '../util/token-bucket.js';
import type { ApiKey } from './api-key.js';

interface KeyRate extends Rate {
  readonly bucket: TokenBucket;
}

const keysMax = 10_000;

/**
 * Limits the requests of each API key to its rate. State is in memory and per process. Above 10,000 keys with a
 * rate, the bucket of the least recently used key is evicted, and this key starts again with a full bucket.
 */
export class KeyRates {
  readonly #rates = new LruMap<string, KeyRate>(keysMax);
  readonly #clock: Clock;

  constructor(monotonicClock: Clock) {
    this.#clock = monotonicClock;
  }

  /**
   * Counts a request of the key and returns 0, or counts nothing and returns the ms until the next request is
   * allowed. A key whose rate was changed starts with a full bucket.
   */
  take({ id, rate }: Pick<ApiKey, 'id' | 'rate'>): number {
    if (rate === undefined) return 0;
    const { count, perMs } = rate;
    const known = this.#rates.use(id);
    if (known?.count === count && known.perMs === perMs) return known.bucket.take(id);
    const bucket = new TokenBucket({ count, perMs, keysMax: 1, clock: this.#clock });
    this.#rates.set(id, { count, perMs, bucket });
    return bucket.take(id);
  }
}
