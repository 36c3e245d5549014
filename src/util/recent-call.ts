import type { Clock } from '../clock.js';

export interface RecentCallOptions {
  /** Time for which requests share a call, counted from its start. */
  readonly maxAgeMs: number;
  /** Returns milliseconds, of which only differences matter. */
  readonly monotonicClock: Clock;
}

/**
 * Shares calls of an asynchronous function between requests that accept a recent outcome. At
 * most one call starts per `maxAgeMs`, however many requests there are. A call that hangs does not keep
 * the next one from starting.
 */
export class RecentCall<Result> {
  readonly #call: () => Promise<Result>;
  readonly #options: RecentCallOptions;
  #latest: { readonly startedAt: number; readonly outcome: Promise<Result> } | undefined;

  constructor(call: () => Promise<Result>, options: RecentCallOptions) {
    this.#call = call;
    this.#options = options;
  }

  /** Settles as the latest call does. Starts a new call first if the latest started `maxAgeMs` ago or earlier. */
  run(): Promise<Result> {
    const { maxAgeMs, monotonicClock } = this.#options;
    const now = monotonicClock();
    if (this.#latest === undefined || now - this.#latest.startedAt >= maxAgeMs) {
      this.#latest = { startedAt: now, outcome: this.#call() };
    }
    return this.#latest.outcome;
  }
}
