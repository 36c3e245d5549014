import type { Subject } from '../subject.js';

/** Weight of the initial pace in the estimate: that of a finished subject with these `seconds`. */
const guessWeightSeconds = 60;

/** Reports the progress of a run and the time left, estimated from the finished subjects. */
export class Progress {
  readonly #subjects: readonly Subject[];
  readonly #pace: number;
  #finishedCount = 0;
  #spentSeconds = 0;

  /** `pace` is the expected duration relative to the `seconds` of the subjects. */
  constructor(subjects: readonly Subject[], pace: number) {
    this.#subjects = subjects;
    this.#pace = pace;
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
    const planned = sum(this.#subjects.slice(0, this.#finishedCount));
    const pace =
      (this.#spentSeconds + this.#pace * guessWeightSeconds) / (planned + guessWeightSeconds);
    return sum(this.#subjects.slice(this.#finishedCount)) * pace;
  }
}

function formatTime(seconds: number): string {
  return seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
}
