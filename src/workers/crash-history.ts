const minuteMs = 60_000;
const crashesPerMinuteMax = 5;
const backOffMaxMs = 10_000;

/** Records thread crashes and computes the delay before a restart. */
export class CrashHistory {
  /** Number of crashes since the start. */
  total = 0;
  #crashTimes: number[] = []; // At most 32. `record` drops those older than a minute.
  readonly #monotonicClock: () => number;
  readonly #backOffMs: number;

  constructor(monotonicClock: () => number, backOffMs: number) {
    this.#monotonicClock = monotonicClock;
    this.#backOffMs = backOffMs;
  }

  /** Whether more than 5 threads crashed within the last minute. Restarts continue nevertheless. */
  get isCrashLooping(): boolean {
    return this.#recent().length > crashesPerMinuteMax;
  }

  /**
   * Records a crash. Returns the delay in ms before the restart, which doubles with each crash in the
   * last minute, up to 10 s.
   */
  record(): number {
    this.total += 1;
    this.#crashTimes = [...this.#recent(), this.#monotonicClock()].slice(-32);
    return Math.min(backOffMaxMs, this.#backOffMs * 2 ** (this.#crashTimes.length - 1));
  }

  #recent(): number[] {
    const since = this.#monotonicClock() - minuteMs;
    return this.#crashTimes.filter((time) => time > since);
  }
}
