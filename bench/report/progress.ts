import type { Subject } from '../subject.js';

/** Weight of the initial estimate: that of a measured subject of this many seconds. */
const guessSeconds = 60;

/** Reports the progress of a run and the time left, estimated from the finished subjects. */
export class Progress {
  readonly #subjects: readonly Subject[];
  readonly #pace: number;
  #done = 0;
  #spent = 0;

  /** `pace`: the expected duration relative to the `seconds` of the subjects. */
  constructor(subjects: readonly Subject[], pace: number) {
    this.#subjects = subjects;
    this.#pace = pace;
  }

  /** The text to print before a subject. */
  get next(): string {
    const { name, about } = this.#subjects[this.#done] ?? { name: '', about: '' };
    const position = `${this.#done + 1} of ${this.#subjects.length}`;
    return `${position}, ${name}: ${about}; some ${formatTime(this.#left)} left`;
  }

  /** Returns the text to print after a subject that took `seconds`. */
  finish(seconds: number): string {
    const name = this.#subjects[this.#done]?.name;
    this.#done += 1;
    this.#spent += seconds;
    return `${name}: ${formatTime(seconds)}, ${formatTime(this.#spent)} in all`;
  }

  get #left(): number {
    const sum = (subjects: readonly Subject[]) =>
      subjects.reduce((all, { seconds }) => all + seconds, 0);
    const planned = sum(this.#subjects.slice(0, this.#done));
    const pace = (this.#spent + this.#pace * guessSeconds) / (planned + guessSeconds);
    return sum(this.#subjects.slice(this.#done)) * pace;
  }
}

function formatTime(seconds: number): string {
  return seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
}
