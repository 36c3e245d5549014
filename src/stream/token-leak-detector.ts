import { LruMap } from '../util/lru-map.js';

const addressesMax = 5;
const windowMs = 60_000;
const tokensMax = 10_000;

/**
 * Detects leaked stream tokens. A token is taken over when it is opened while its stream is open. A
 * client that changes networks takes over its own stream now and then; takeovers from more than 5
 * addresses within a minute mean that the URL has leaked.
 *
 * State is in memory, for the 10,000 tokens that were taken over last.
 */
export class TokenLeakDetector {
  /** Time of the last takeover by token and address. */
  readonly #addresses = new LruMap<string, Map<string, number>>(tokensMax);

  /** Records a takeover at `now` (ms). Returns true and removes the token when it has leaked. */
  recordTakeover(tokenHash: string, ipKey: string, now: number): boolean {
    const addresses = this.#addresses.get(tokenHash) ?? new Map<string, number>();
    for (const [otherIpKey, at] of addresses)
      if (now - at >= windowMs) addresses.delete(otherIpKey);
    addresses.set(ipKey, now);
    if (addresses.size > addressesMax) {
      this.#addresses.delete(tokenHash);
      return true;
    }
    this.#addresses.set(tokenHash, addresses);
    return false;
  }

  /** Number of tokens with recorded takeovers. */
  get size(): number {
    return this.#addresses.size;
  }
}
