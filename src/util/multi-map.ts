const noValues: ReadonlySet<never> = new Set();

/** A map with a set of values per key. */
export class MultiMap<Key, Value> {
  readonly #sets = new Map<Key, Set<Value>>();

  /** Number of keys that have values. */
  get size(): number {
    return this.#sets.size;
  }

  /** Returns the values of a key. The set is not a copy. */
  get(key: Key): ReadonlySet<Value> {
    return this.#sets.get(key) ?? noValues;
  }

  add(key: Key, value: Value): void {
    const values = this.#sets.get(key);
    if (values === undefined) this.#sets.set(key, new Set([value]));
    else values.add(value);
  }

  delete(key: Key, value: Value): void {
    const values = this.#sets.get(key);
    values?.delete(value);
    if (values?.size === 0) this.#sets.delete(key);
  }
}
