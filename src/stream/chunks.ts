import type { Frame } from '../events/frame.js';

interface Chunk {
  readonly frames: readonly Frame[];
  readonly bytes: Buffer;
}

const keptMax = 16;

/**
 * Frames put together for one write. Whoever is to get the same frames gets the same Buffer, however
 * many they are: the newest 16 chunks are remembered.
 */
export class Chunks {
  readonly #kept: Chunk[] = [];
  #oldest = 0;

  /** The bytes of one or more frames in a row. They belong to many: never to be written into. */
  join(frames: readonly Frame[]): Buffer {
    const [only] = frames;
    if (only !== undefined && frames.length === 1) return only.bytes;
    const known = this.#kept.find((chunk) => isSame(chunk.frames, frames));
    if (known !== undefined) return known.bytes;
    const chunk = { frames, bytes: Buffer.concat(frames.map(({ bytes }) => bytes)) };
    this.#kept[this.#oldest] = chunk;
    this.#oldest = (this.#oldest + 1) % keptMax;
    return chunk.bytes;
  }
}

function isSame(some: readonly Frame[], others: readonly Frame[]): boolean {
  return some.length === others.length && some.every((frame, index) => frame === others[index]);
}
