import { LruMap } from '../util/lru-map.js';

const placesMax = 5;
const windowMs = 60_000;
const tokensMax = 10_000;

/**
 * Which stream tokens go from hand to hand. A client that moves takes its own stream over now and
 * then; more than 5 places within a minute are not one client, so the URL has leaked.
 *
 * In memory, of the 10,000 tokens taken over last.
 */
export class TokenLeakDetector {
  /** When each place last took a token over. */
  readonly #places = new LruMap<string, Map<string, number>>(tokensMax);

  /** Notes a takeover. True when the token has leaked; then it is forgotten here. */
  recordTakeover(tokenHash: string, place: string, now: number): boolean {
    const places = this.#places.get(tokenHash) ?? new Map<string, number>();
    for (const [one, at] of places) if (now - at >= windowMs) places.delete(one);
    places.set(place, now);
    if (places.size > placesMax) {
      this.#places.delete(tokenHash);
      return true;
    }
    this.#places.set(tokenHash, places);
    return false;
  }

  /** How many tokens are remembered. */
  get size(): number {
    return this.#places.size;
  }
}
