/**
 * Bytes that come in pieces, as one Buffer. Copied, for a piece is a slice of what TLS received with
 * it: each kept byte could keep 16 KiB alive. What is allocated is at most twice what has come.
 */
export class ByteAccumulator {
  #bytes = Buffer.alloc(0);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  append(piece: Buffer): void {
    const length = this.#length + piece.length;
    if (length > this.#bytes.length) {
      // Not from Node's pool, of which a small one would keep 8 KiB.
      const larger = Buffer.allocUnsafeSlow(Math.max(length, 2 * this.#bytes.length));
      this.#bytes.copy(larger, 0, 0, this.#length);
      this.#bytes = larger;
    }
    piece.copy(this.#bytes, this.#length);
    this.#length = length;
  }

  /** All of it, good until the next `append`, which begins anew. */
  take(): Buffer {
    const all = this.#bytes.subarray(0, this.#length);
    this.#length = 0;
    return all;
  }
}
