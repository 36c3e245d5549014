const stepMicros = 50;
const stepsMax = 1_200_000; // One minute.
/** Length of a slot of `timelineMs`. */
export const slotMs = 250;

export interface LatencySummary {
  readonly count: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly p999Ms: number;
  readonly maxMs: number;
  /** The longest duration added in each slot of `slotMs` since the reset; 0 for an empty slot. */
  readonly timelineMs: readonly number[];
}

/** A histogram of durations in steps of 50 microseconds. Durations over a minute count in the last step. */
export class Latencies {
  readonly #counts = new Uint32Array(stepsMax);
  #count = 0;
  #maxMicros = 0;
  #timelineMs: number[] = [];
  #startedAt = performance.now();

  add(micros: number): void {
    const step = Math.min(stepsMax - 1, Math.max(0, Math.floor(micros / stepMicros)));
    this.#counts[step] = (this.#counts[step] ?? 0) + 1;
    this.#count += 1;
    if (micros > this.#maxMicros) this.#maxMicros = micros;
    const slot = Math.floor((performance.now() - this.#startedAt) / slotMs);
    while (this.#timelineMs.length <= slot) this.#timelineMs.push(0);
    this.#timelineMs[slot] = Math.max(this.#timelineMs[slot] ?? 0, micros / 1000);
  }

  reset(): void {
    this.#counts.fill(0);
    this.#count = 0;
    this.#maxMicros = 0;
    this.#timelineMs = [];
    this.#startedAt = performance.now();
  }

  get summary(): LatencySummary {
    const quantileMs = (fraction: number) => this.#quantile(fraction) / 1000;
    const [count, maxMs, timelineMs] = [this.#count, this.#maxMicros / 1000, this.#timelineMs];
    return {
      count,
      p50Ms: quantileMs(0.5),
      p99Ms: quantileMs(0.99),
      p999Ms: quantileMs(0.999),
      maxMs,
      timelineMs,
    };
  }

  #quantile(fraction: number): number {
    let samplesLeft = Math.ceil(this.#count * fraction);
    if (samplesLeft === 0) return 0;
    for (let step = 0; step < stepsMax; step += 1) {
      samplesLeft -= this.#counts[step] ?? 0;
      if (samplesLeft <= 0) return (step + 1) * stepMicros;
    }
    return stepsMax * stepMicros;
  }
}
