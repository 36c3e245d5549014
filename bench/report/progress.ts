import type { Subject } from '../subject.js';

/** Guesses weigh as much as a subject of this many seconds that was measured. */
const guessSeconds = 60;

/** Tells how far a run is, and when it will be over: by what subjects took that are done. */
export class Progress {
  readonly #subjects: readonly Subject[];
  readonly #pace: number;
  #done = 0;
  #spent = 0;

  /** `pace`: how long it should take, of the time that subjects say they take. */
  constructor(subjects: readonly Subject[], pace: number) {
    this.#subjects = subjects;
    this.#pace = pace;
  }

  /** Before a subject. */
  get next(): string {
    const { name, about } = this.#subjects[this.#done] ?? { name: '', about: '' };
    const place = `${this.#done + 1} of ${this.#subjects.length}`;
    return `${place}, ${name}: ${about}; some ${timeText(this.#left)} left`;
  }

  /** After it, so many seconds later. */
  finish(seconds: number): string {
    const name = this.#subjects[this.#done]?.name;
    this.#done += 1;
    this.#spent += seconds;
    return `${name}: ${timeText(seconds)}, ${timeText(this.#spent)} in all`;
  }

  get #left(): number {
    const sum = (subjects: readonly Subject[]) =>
      subjects.reduce((all, { seconds }) => all + seconds, 0);
    const planned = sum(this.#subjects.slice(0, this.#done));
    const pace = (this.#spent + this.#pace * guessSeconds) / (planned + guessSeconds);
    return sum(this.#subjects.slice(this.#done)) * pace;
  }
}

function timeText(seconds: number): string {
  return seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
}
