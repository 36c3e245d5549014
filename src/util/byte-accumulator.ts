/**
 * Collects chunks of bytes into one Buffer. Copies them, because a chunk is a slice of a TLS record, so
 * a retained chunk of one byte could retain 16 KiB. The buffer has at most twice the size of the longest
 * content.
 */
export class ByteAccumulator {
  #bytes = Buffer.alloc(0);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  append(chunk: Buffer): void {
    const length = this.#length + chunk.length;
    if (length > this.#bytes.length) {
      // Not from Node's Buffer pool, because a small Buffer would retain 8 KiB of it.
      const larger = Buffer.allocUnsafeSlow(Math.max(length, 2 * this.#bytes.length));
      this.#bytes.copy(larger, 0, 0, this.#length);
      this.#bytes = larger;
    }
    chunk.copy(this.#bytes, this.#length);
    this.#length = length;
  }

  /**
   * Returns all bytes and resets the accumulator. The result is valid until the next `append`, which
   * overwrites it.
   */
  take(): Buffer {
    const all = this.#bytes.subarray(0, this.#length);
    this.#length = 0;
    return all;
  }
}
