import { LruMap } from '../../util/lru-map.js';

const addressesMax = 5;
const windowMs = 60_000;
const tokensMax = 10_000;

/**
 * Detects leaked stream tokens. A takeover is the opening of a token whose previous stream is still
 * open. A client that changes networks takes over its own stream now and then. Takeovers from more than 5
 * addresses within a minute mean that the URL has leaked.
 *
 * Keeps its state in memory, for the 10,000 tokens that were taken over last.
 */
export class TokenLeakDetector {
  /** Time of the last takeover by token and address. */
  readonly #takeoverTimes = new LruMap<string, Map<string, number>>(tokensMax);

  /** Records a takeover at `now` (ms). Returns true, and forgets the token, if it has leaked. */
  recordTakeover(tokenHash: string, ipKey: string, now: number): boolean {
    const addresses = this.#takeoverTimes.get(tokenHash) ?? new Map<string, number>();
    for (const [otherIpKey, at] of addresses)
      if (now - at >= windowMs) addresses.delete(otherIpKey);
    addresses.set(ipKey, now);
    if (addresses.size > addressesMax) {
      this.#takeoverTimes.delete(tokenHash);
      return true;
    }
    this.#takeoverTimes.set(tokenHash, addresses);
    return false;
  }

  /** Number of tokens with recorded takeovers. */
  get size(): number {
    return this.#takeoverTimes.size;
  }
}
