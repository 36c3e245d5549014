/** Counts per key. A key whose count is 0 uses no memory. */
export class Counts<Key> {
  readonly #counts = new Map<Key, number>();

  /** The number of keys whose count is not 0. */
  get size(): number {
    return this.#counts.size;
  }

  get(key: Key): number {
    return this.#counts.get(key) ?? 0;
  }

  add(key: Key, by = 1): void {
    this.#counts.set(key, this.get(key) + by);
  }

  /** Undoes an `add`. A count never falls below 0. */
  remove(key: Key, by = 1): void {
    const left = this.get(key) - by;
    if (left > 0) this.#counts.set(key, left);
    else this.#counts.delete(key);
  }
}
