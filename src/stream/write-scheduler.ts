import type { Frame } from '../events/frame.js';
import { Chunks } from './chunks.js';

/** A connection that has something to write. */
export interface Sender {
  /** Writes all it has, and answers how many frames that were. Must not throw. */
  flush(): number;
}

/** So many write before other work gets its turn: some 3 ms. */
const sendersPerSlice = 128;
const restMaxMs = 20;
/** In one write: with more, a write costs little beside what it carries. */
const framesEnough = 8;

/**
 * Gathers who has something to write, and lets each write once a round.
 *
 * A round begins at the end of the tick. One of up to 128 senders is over at once. A larger one goes
 * on in slices of 128, so that requests are not kept waiting by thousands of streams, and is
 * followed by a rest as long as itself, 20 ms at most. What comes during a round or a rest goes out
 * together in the next one: the more there is to do, the more each write carries. Where writes carry
 * more than 8 frames anyway, a rest would save little and only add to the delay: it is the shorter,
 * the more they carry.
 */
export class Outbox {
  readonly #now: () => number;
  readonly #chunks = new Chunks();
  #senders = new Set<Sender>();
  #round: Iterator<Sender> | undefined;
  #startedAt = 0;
  #senderCount = 0;
  #frameCount = 0;
  #restsUntil = 0;

  /** `now` in milliseconds, from anywhere, never backwards. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  add(sender: Sender): void {
    this.#senders.add(sender);
    if (this.#senders.size === 1 && this.#round === undefined) this.#schedule();
  }

  /** See `Chunks`. */
  join(frames: readonly Frame[]): Buffer {
    return this.#chunks.join(frames);
  }

  #schedule(): void {
    const restMs = this.#restsUntil - this.#now();
    if (restMs >= 1) setTimeout(() => this.#begin(), restMs);
    else setImmediate(() => this.#begin());
  }

  #begin(): void {
    const senders = this.#senders;
    this.#senders = new Set();
    if (senders.size <= sendersPerSlice) {
      for (const sender of senders) sender.flush();
      return;
    }
    this.#startedAt = this.#now();
    this.#senderCount = senders.size;
    this.#frameCount = 0;
    this.#round = senders.values();
    this.#writeSome(this.#round);
  }

  #writeSome(round: Iterator<Sender>): void {
    for (let count = 0; count < sendersPerSlice; count += 1) {
      const next = round.next();
      if (next.done === true) {
        // Node sends what was written in one turn of its loop at the end of the turn: that counts.
        setImmediate(() => this.#rest());
        return;
      }
      this.#frameCount += next.value.flush();
    }
    setImmediate(() => this.#writeSome(round));
  }

  #rest(): void {
    const now = this.#now();
    this.#round = undefined;
    const framesEach = this.#frameCount / this.#senderCount;
    const share = Math.min(1, framesEnough / framesEach);
    this.#restsUntil = now + share * Math.min(now - this.#startedAt, restMaxMs);
    if (this.#senders.size > 0) this.#schedule();
  }
}
