import type { Frame } from '../events/frame.js';

interface Chunk {
  readonly frames: readonly Frame[];
  readonly bytes: Buffer;
}

const chunksMax = 16;

/**
 * Concatenates frames for one write. Streams that write the same frames share one Buffer, as long as it is
 * among the newest 16 chunks, which are cached.
 */
export class ChunkCache {
  readonly #cached: Chunk[] = [];
  #oldestIndex = 0;

  /** Returns the bytes of one or more frames. The Buffer is shared: never modify it. */
  concat(frames: readonly Frame[]): Buffer {
    const [single] = frames;
    if (single !== undefined && frames.length === 1) return single.bytes;
    const found = this.#cached.find((chunk) => areSameFrames(chunk.frames, frames));
    if (found !== undefined) return found.bytes;
    const chunk = { frames, bytes: Buffer.concat(frames.map(({ bytes }) => bytes)) };
    this.#cached[this.#oldestIndex] = chunk;
    this.#oldestIndex = (this.#oldestIndex + 1) % chunksMax;
    return chunk.bytes;
  }
}

function areSameFrames(a: readonly Frame[], b: readonly Frame[]): boolean {
  return a.length === b.length && a.every((frame, index) => frame === b[index]);
}
