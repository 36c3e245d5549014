import type { Frame } from '../events/frame.js';
import { ChunkCache } from './chunk-cache.js';

/** A connection that has something to write. */
export interface Flushable {
  /** Writes all it has, and answers how many frames that were. Must not throw. */
  flush(): number;
}

/** So many write before other work gets its turn: some 3 ms. */
const flushesPerSlice = 128;
const coolDownMaxMs = 20;
/** In one write: with more, a write costs little beside what it carries. */
const framesPerWriteTarget = 8;

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
export class WriteScheduler {
  readonly #monotonicClock: () => number;
  readonly #chunks = new ChunkCache();
  #pending = new Set<Flushable>();
  #cycle: Iterator<Flushable> | undefined;
  #cycleStartedAt = 0;
  #flushCount = 0;
  #frameCount = 0;
  #coolDownUntil = 0;

  /** `now` in milliseconds, from anywhere, never backwards. */
  constructor(monotonicClock: () => number = () => performance.now()) {
    this.#monotonicClock = monotonicClock;
  }

  add(flushable: Flushable): void {
    this.#pending.add(flushable);
    if (this.#pending.size === 1 && this.#cycle === undefined) this.#schedule();
  }

  /** See `Chunks`. */
  concat(frames: readonly Frame[]): Buffer {
    return this.#chunks.concat(frames);
  }

  #schedule(): void {
    const coolDownMs = this.#coolDownUntil - this.#monotonicClock();
    if (coolDownMs >= 1) setTimeout(() => this.#startCycle(), coolDownMs);
    else setImmediate(() => this.#startCycle());
  }

  #startCycle(): void {
    const flushables = this.#pending;
    this.#pending = new Set();
    if (flushables.size <= flushesPerSlice) {
      for (const flushable of flushables) flushable.flush();
      return;
    }
    this.#cycleStartedAt = this.#monotonicClock();
    this.#flushCount = flushables.size;
    this.#frameCount = 0;
    this.#cycle = flushables.values();
    this.#flushSlice(this.#cycle);
  }

  #flushSlice(cycle: Iterator<Flushable>): void {
    for (let count = 0; count < flushesPerSlice; count += 1) {
      const next = cycle.next();
      if (next.done === true) {
        // Node sends what was written in one turn of its loop at the end of the turn: that counts.
        setImmediate(() => this.#coolDown());
        return;
      }
      this.#frameCount += next.value.flush();
    }
    setImmediate(() => this.#flushSlice(cycle));
  }

  #coolDown(): void {
    const now = this.#monotonicClock();
    this.#cycle = undefined;
    const framesEach = this.#frameCount / this.#flushCount;
    const share = Math.min(1, framesPerWriteTarget / framesEach);
    this.#coolDownUntil = now + share * Math.min(now - this.#cycleStartedAt, coolDownMaxMs);
    if (this.#pending.size > 0) this.#schedule();
  }
}
