const minuteMs = 60_000;
const perMinuteMax = 5;
const backOffMaxMs = 10_000;

/** Records thread crashes and computes the delay before a restart. */
export class CrashHistory {
  /** Number of crashes since the start. */
  total = 0;
  #times: number[] = []; // Within the last minute, at most the newest 32.
  readonly #monotonicClock: () => number;
  readonly #backOffMs: number;

  constructor(monotonicClock: () => number, backOffMs: number) {
    this.#monotonicClock = monotonicClock;
    this.#backOffMs = backOffMs;
  }

  /** Whether more than 5 threads crashed within a minute: a cause that a restart does not fix. */
  get isCrashLooping(): boolean {
    return this.#recent().length > perMinuteMax;
  }

  /**
   * Records a crash. Returns the delay in ms before the restart, which doubles with each crash in a
   * minute, to 10 s.
   */
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
