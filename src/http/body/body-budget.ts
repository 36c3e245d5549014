import { Failure } from '../../errors.js';
import { Counts } from '../../util/counts.js';

interface BudgetOptions {
  /** Maximum number of bytes per IP key. Default: no limit but `bytesMax`. */
  readonly bytesPerIpMax?: number;
}

/**
 * Bounds the memory held by request bodies. Callers release what they acquire.
 *
 * A budget with a limit per IP key is for unauthenticated clients. It does not reserve the declared length of
 * a body: otherwise a few clients could declare large bodies, send nothing, and block all others.
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

  /**
   * Whether the declared length of a body is acquired before the body is received. An accepted body can then
   * always be completed.
   */
  get reservesDeclaredLength(): boolean {
    return this.#bytesPerIpMax === undefined;
  }

  /**
   * Acquires bytes for a body and returns true; returns false, and acquires nothing, when fewer bytes are left.
   * `ipKey` is a result of `toIpKey`.
   */
  tryAcquire(bytes: number, ipKey = ''): boolean {
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

/** Returns the failure for a body that exceeds the budget. */
export function budgetExhausted(): Failure {
  const message = 'Cannot read body: the memory for request bodies is exhausted';
  return new Failure('service_unavailable', message, { retryAfterMs: 1000 });
}
