/**
 * Shares calls of an asynchronous function between requests. A call starts no earlier than the requests
 * that it answers, so its outcome reflects everything that happened before them. At most one call is
 * active, and all requests that arrive meanwhile share the next one.
 */
export class SharedCall<Result> {
  readonly #call: () => Promise<Result>;
  #active: Promise<Result> | undefined;
  #next: Promise<Result> | undefined;

  constructor(call: () => Promise<Result>) {
    this.#call = call;
  }

  /** Requests a call and settles as the call does. */
  run(): Promise<Result> {
    if (this.#active === undefined) {
      this.#active = this.#call().finally(() => {
        this.#active = undefined;
      });
      return this.#active;
    }
    this.#next ??= this.#active
      .catch(() => {}) // The requests of that call get the error.
      .then(() => {
        this.#next = undefined;
        return this.run();
      });
    return this.#next;
  }
}

/** Shares calls per key: see `SharedCall`. Keeps nothing for a key without an active call. */
export class KeyedSharedCalls<Result> {
  readonly #callsByKey = new Map<string, { readonly call: SharedCall<Result>; requests: number }>();

  /** Requests a call for a key and settles as the call does. Equal keys must stand for equal calls. */
  async run(key: string, call: () => Promise<Result>): Promise<Result> {
    const entry = this.#callsByKey.get(key) ?? { call: new SharedCall(call), requests: 0 };
    this.#callsByKey.set(key, entry);
    entry.requests += 1;
    try {
      return await entry.call.run();
    } finally {
      entry.requests -= 1;
      if (entry.requests === 0) this.#callsByKey.delete(key);
    }
  }
}
