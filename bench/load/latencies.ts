const stepMicros = 50;
const stepsMax = 1_200_000; // A minute.
export const slotMs = 250;

export interface LatencySummary {
  readonly count: number;
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
  /** The maximum of each quarter of a second since the reset, ms; 0 without a sample. */
  readonly timeline: readonly number[];
}

/** A histogram of durations, in steps of 50 microseconds up to a minute. */
export class Latencies {
  readonly #counts = new Uint32Array(stepsMax);
  #count = 0;
  #max = 0;
  #timeline: number[] = [];
  #startedAt = performance.now();

  add(micros: number): void {
    const step = Math.min(stepsMax - 1, Math.max(0, Math.floor(micros / stepMicros)));
    this.#counts[step] = (this.#counts[step] ?? 0) + 1;
    this.#count += 1;
    if (micros > this.#max) this.#max = micros;
    const slot = Math.floor((performance.now() - this.#startedAt) / slotMs);
    while (this.#timeline.length <= slot) this.#timeline.push(0);
    this.#timeline[slot] = Math.max(this.#timeline[slot] ?? 0, micros / 1000);
  }

  reset(): void {
    this.#counts.fill(0);
    this.#count = 0;
    this.#max = 0;
    this.#timeline = [];
    this.#startedAt = performance.now();
  }

  /** The quantiles and the maximum, in milliseconds. */
  get summary(): LatencySummary {
    const at = (part: number) => this.#quantile(part) / 1000;
    const [count, max, timeline] = [this.#count, this.#max / 1000, this.#timeline];
    return { count, p50: at(0.5), p99: at(0.99), p999: at(0.999), max, timeline };
  }

  #quantile(part: number): number {
    let left = Math.ceil(this.#count * part);
    if (left === 0) return 0;
    for (let step = 0; step < stepsMax; step += 1) {
      left -= this.#counts[step] ?? 0;
      if (left <= 0) return (step + 1) * stepMicros;
    }
    return stepsMax * stepMicros;
  }
}
