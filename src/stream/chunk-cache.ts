import type { Frame } from '../events/frame.js';

interface Chunk {
  readonly frames: readonly Frame[];
  readonly bytes: Buffer;
}

const cachedMax = 16;

/**
 * Frames put together for one write. Whoever is to get the same frames gets the same Buffer, however
 * many they are: the newest 16 chunks are remembered.
 */
export class ChunkCache {
  readonly #cached: Chunk[] = [];
  #oldest = 0;

  /** The bytes of one or more frames in a row. They belong to many: never to be written into. */
  concat(frames: readonly Frame[]): Buffer {
    const [single] = frames;
    if (single !== undefined && frames.length === 1) return single.bytes;
    const found = this.#cached.find((chunk) => areSameFrames(chunk.frames, frames));
    if (found !== undefined) return found.bytes;
    const chunk = { frames, bytes: Buffer.concat(frames.map(({ bytes }) => bytes)) };
    this.#cached[this.#oldest] = chunk;
    this.#oldest = (this.#oldest + 1) % cachedMax;
    return chunk.bytes;
  }
}

function areSameFrames(a: readonly Frame[], b: readonly Frame[]): boolean {
  return a.length === b.length && a.every((frame, index) => frame === b[index]);
}
