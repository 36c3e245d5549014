import { Failure } from '../../errors.js';
import { Counts } from '../../util/counts.js';

interface BudgetOptions {
  /** What bodies from one place may take of it; undefined: all. */
  readonly placeBytesMax?: number;
}

/**
 * How many bytes of bodies may be in memory together. Whoever takes some gives them back.
 *
 * With a share for each place it is one for strangers: a length that was only declared takes
 * nothing, or a few that send nothing would shut out everybody.
 */
export class BodyBudget {
  readonly #bytesMax: number;
  readonly #placeBytesMax: number | undefined;
  readonly #byPlace = new Counts<string>();
  #taken = 0;

  constructor(bytesMax: number, { placeBytesMax }: BudgetOptions = {}) {
    this.#bytesMax = bytesMax;
    this.#placeBytesMax = placeBytesMax;
  }

  /** Whether a declared length is taken before it has come, so that who begins can also finish. */
  get holdsDeclared(): boolean {
    return this.#placeBytesMax === undefined;
  }

  /** False, and nothing is taken, when there are not so many left. `place` as by `ipKeyOf`. */
  take(bytes: number, place = ''): boolean {
    if (this.#taken + bytes > this.#bytesMax) return false;
    if (this.#placeBytesMax !== undefined) {
      if (this.#byPlace.get(place) + bytes > this.#placeBytesMax) return false;
      this.#byPlace.add(place, bytes);
    }
    this.#taken += bytes;
    return true;
  }

  giveBack(bytes: number, place = ''): void {
    this.#taken -= bytes;
    if (this.#placeBytesMax !== undefined) this.#byPlace.remove(place, bytes);
  }
}

/** For a body that finds no room. */
export function noRoom(): Failure {
  const message = 'Cannot read body: the bodies of other requests take all the room';
  return new Failure('service_unavailable', message, { retryAfterMs: 1000 });
}
