const minuteMs = 60_000;
const perMinuteMax = 5;
const backOffMaxMs = 10_000;

/** When threads died, and how long to wait before the next try. */
export class CrashHistory {
  /** Since the start. */
  total = 0;
  #times: number[] = []; // Of the last minute, the newest 32 at most.
  readonly #monotonicClock: () => number;
  readonly #backOffMs: number;

  constructor(monotonicClock: () => number, backOffMs: number) {
    this.#monotonicClock = monotonicClock;
    this.#backOffMs = backOffMs;
  }

  /** More than 5 within a minute: something is wrong that starting again does not mend. */
  get isCrashLooping(): boolean {
    return this.#recent().length > perMinuteMax;
  }

  /** Counts one. How long to wait before the thread is replaced: doubles with each in a minute. */
  record(): number {
    this.total += 1;
    this.#times = [...this.#recent(), this.#monotonicClock()].slice(-32);
    return Math.min(backOffMaxMs, this.#backOffMs * 2 ** (this.#times.length - 1));
  }

  #recent(): number[] {
    const since = this.#monotonicClock() - minuteMs;
    return this.#times.filter((time) => time > since);
  }
}
