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
