import { Failure } from '../../errors.js';
import { Counts } from '../../util/counts.js';

interface BudgetOptions {
  /** What bodies from one place may take of it; undefined: all. */
  readonly bytesPerIpMax?: number;
}

/**
 * How many bytes of bodies may be in memory together. Whoever takes some gives them back.
 *
 * With a share for each place it is one for strangers: a length that was only declared takes
 * nothing, or a few that send nothing would shut out everybody.
 */
export class BodyBudget {
  readonly #bytesMax: number;
  readonly #bytesPerIpMax: number | undefined;
  readonly #bytesByIp = new Counts<string>();
  #acquiredBytes = 0;

  constructor(bytesMax: number, { bytesPerIpMax }: BudgetOptions = {}) {
    this.#bytesMax = bytesMax;
    this.#bytesPerIpMax = bytesPerIpMax;
  }

  /** Whether a declared length is taken before it has come, so that who begins can also finish. */
  get reservesDeclaredLength(): boolean {
    return this.#bytesPerIpMax === undefined;
  }

  /** False, and nothing is taken, when there are not so many left. `place` as by `ipKeyOf`. */
  acquire(bytes: number, ipKey = ''): boolean {
    if (this.#acquiredBytes + bytes > this.#bytesMax) return false;
    if (this.#bytesPerIpMax !== undefined) {
      if (this.#bytesByIp.get(ipKey) + bytes > this.#bytesPerIpMax) return false;
      this.#bytesByIp.add(ipKey, bytes);
    }
    this.#acquiredBytes += bytes;
    return true;
  }

  release(bytes: number, ipKey = ''): void {
    this.#acquiredBytes -= bytes;
    if (this.#bytesPerIpMax !== undefined) this.#bytesByIp.remove(ipKey, bytes);
  }
}

/** For a body that finds no room. */
export function budgetExhausted(): Failure {
  const message = 'Cannot read body: the memory for request bodies is exhausted';
  return new Failure('service_unavailable', message, { retryAfterMs: 1000 });
}
