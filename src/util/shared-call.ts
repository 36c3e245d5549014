/**
 * Shares calls of an asynchronous function. A caller gets the outcome of a call that starts no
 * earlier than its own request, so it sees everything that happened before. At most one call is active,
 * and all requests that arrive meanwhile share the next one.
 */
export class SharedCall<Result> {
  readonly #call: () => Promise<Result>;
  #active: Promise<Result> | undefined;
  #next: Promise<Result> | undefined;

  constructor(call: () => Promise<Result>) {
    this.#call = call;
  }

  /** Rejects when the call does. */
  run(): Promise<Result> {
    if (this.#active === undefined) {
      this.#active = this.#call().finally(() => {
        this.#active = undefined;
      });
      return this.#active;
    }
    this.#next ??= this.#active
      .catch(() => {}) // Its own callers handle the error.
      .then(() => {
        this.#next = undefined;
        return this.run();
      });
    return this.#next;
  }
}
