import type { Subject } from '../subject.js';

/** Weight of the expected ratio in the estimate: as much as a finished subject of this duration. */
const expectedRatioWeightSeconds = 60;

/** Reports the progress of a run and the time left, estimated from the finished subjects. */
export class Progress {
  readonly #subjects: readonly Subject[];
  readonly #expectedRatio: number;
  #finishedCount = 0;
  #spentSeconds = 0;

  /** `expectedRatio` is the expected duration of this run, relative to the `seconds` of the subjects. */
  constructor(subjects: readonly Subject[], expectedRatio: number) {
    this.#subjects = subjects;
    this.#expectedRatio = expectedRatio;
  }

  /** The text to print before a subject. */
  get startText(): string {
    const { name, about } = this.#subjects[this.#finishedCount] ?? { name: '', about: '' };
    const position = `${this.#finishedCount + 1} of ${this.#subjects.length}`;
    return `${position}, ${name}: ${about}; about ${formatTime(this.#secondsLeft)} left`;
  }

  /** Returns the text to print after a subject that took `seconds`. */
  finish(seconds: number): string {
    const name = this.#subjects[this.#finishedCount]?.name;
    this.#finishedCount += 1;
    this.#spentSeconds += seconds;
    return `${name}: ${formatTime(seconds)}, ${formatTime(this.#spentSeconds)} in total`;
  }

  get #secondsLeft(): number {
    const sum = (subjects: readonly Subject[]) =>
      subjects.reduce((total, { seconds }) => total + seconds, 0);
    const plannedSeconds = sum(this.#subjects.slice(0, this.#finishedCount));
    const durationRatio =
      (this.#spentSeconds + this.#expectedRatio * expectedRatioWeightSeconds) /
      (plannedSeconds + expectedRatioWeightSeconds);
    return sum(this.#subjects.slice(this.#finishedCount)) * durationRatio;
  }
}

function formatTime(seconds: number): string {
  return seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
}
