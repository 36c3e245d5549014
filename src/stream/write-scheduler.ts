import type { Frame } from '../events/frame.js';
import { ChunkCache } from './chunk-cache.js';

/** A stream whose pending frames can be written. */
export interface Flushable {
  /** Writes all pending frames and returns their number. Must not throw. */
  flush(): number;
}

/** Number of streams flushed per event-loop iteration. A slice of 128 takes about 3 ms. */
const flushesPerSlice = 128;
const coolDownMaxMs = 20;
/** Above this many frames per write, the fixed cost of a write is negligible. */
const framesPerWriteTarget = 8;

/**
 * Schedules writes: each stream with pending frames is flushed once per flush cycle.
 *
 * A cycle starts at the end of the event-loop iteration. A cycle of up to 128 streams is flushed at once,
 * without a cool-down. A larger cycle runs in slices of 128, so that thousands of streams do not
 * block requests, and is followed by a cool-down as long as the cycle, at most 20 ms. Frames added
 * during a cycle or its cool-down are sent together in the next cycle, so each write carries more
 * frames under load. If the cycle wrote more than 8 frames per write on average, another cool-down
 * saves little and adds delay, so it is shortened in proportion.
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

  /** `monotonicClock` returns milliseconds from any origin. */
  constructor(monotonicClock: () => number = () => performance.now()) {
    this.#monotonicClock = monotonicClock;
  }

  /** Schedules a flush of this stream in the next cycle. Idempotent until that cycle starts. */
  add(flushable: Flushable): void {
    this.#pending.add(flushable);
    if (this.#pending.size === 1 && this.#cycle === undefined) this.#schedule();
  }

  /** Returns the bytes of frames as a shared Buffer, see `ChunkCache.concat`. */
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
        // Node sends at the end of the event-loop iteration, which is part of the cost of a cycle.
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
    const framesPerWrite = this.#frameCount / this.#flushCount;
    const coolDownShare = Math.min(1, framesPerWriteTarget / framesPerWrite);
    this.#coolDownUntil = now + coolDownShare * Math.min(now - this.#cycleStartedAt, coolDownMaxMs);
    if (this.#pending.size > 0) this.#schedule();
  }
}
