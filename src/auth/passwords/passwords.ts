import { randomBytes } from 'node:crypto';
import { Failure } from '../../errors.js';
import type { Pool, RunOptions } from '../../workers/pool.js';
import type { AuthJobs } from '../jobs.js';
import { toUsernameKey } from '../username.js';
import { type Argon2Cost, isWithinBounds, parseDigest } from './argon2-digest.js';
import { commonPasswords } from './common-passwords.js';

/** A key kept outside the database that goes into every hash. */
export interface Pepper {
  /** 1 to 32,767; stored beside each hash. */
  readonly version: number;
  readonly key: Uint8Array;
}

export interface PasswordsOptions {
  readonly threads: Pick<Pool<AuthJobs>, 'run'>;
  /** Of new hashes. */
  readonly cost: Argon2Cost;
  /** In characters (code points). */
  readonly lengthMin: number;
  /** Of new hashes. Default: none. */
  readonly pepper?: Pepper | undefined;
  /** Still good for hashes of before. */
  readonly previousPepper?: Pepper | undefined;
}

/** A hash as it is stored. Version 0 means no pepper. */
export interface StoredPassword {
  readonly hash: string;
  readonly pepperVersion: number;
}

const bytesMax = 512;

/**
 * Passwords: what may be one, their hashes, and whether one fits.
 *
 * Passwords are compared in Unicode form NFKC, so it does not matter how a keyboard spells `é`.
 * They are text of 1 to 512 bytes (UTF-8, after that); nothing is ever cut off.
 */
export class Passwords {
  readonly #options: PasswordsOptions;
  readonly #peppers = new Map<number, Uint8Array | undefined>([[0, undefined]]);
  readonly #current: { readonly pepper: Uint8Array | undefined; readonly pepperVersion: number };
  #dummyHash = '';

  private constructor(options: PasswordsOptions) {
    const { pepper, previousPepper } = options;
    for (const one of [previousPepper, pepper]) {
      // A copy of its own: a small Buffer is a window on memory it shares, which would be sent too.
      if (one !== undefined) this.#peppers.set(one.version, new Uint8Array(one.key));
    }
    const pepperVersion = pepper?.version ?? 0;
    this.#options = options;
    this.#current = { pepper: this.#peppers.get(pepperVersion), pepperVersion };
  }

  /** Makes the decoy at the present cost. Throws an Error for a cost or peppers that cannot be. */
  static async open(options: PasswordsOptions): Promise<Passwords> {
    const { cost, pepper, previousPepper } = options;
    if (!isWithinBounds(cost)) throw new Error('Cannot open passwords: cost is out of bounds');
    const isTwice = pepper !== undefined && pepper.version === previousPepper?.version;
    if (isTwice || pepper?.version === 0 || previousPepper?.version === 0) {
      throw new Error('Cannot open passwords: peppers need versions of their own, from 1');
    }
    const passwords = new Passwords(options);
    passwords.#dummyHash = (await passwords.hash(randomBytes(32).toString('base64'))).hash;
    return passwords;
  }

  /**
   * Whether this is the password of `stored`. Whatever it is given, it does one argon2 verification:
   * without a usable hash (or password) against the decoy, and answers false.
   *
   * Throws `service_unavailable` when the threads have too much to do; rejects with the reason of
   * `signal` when it aborts before the verification starts.
   */
  async verify(
    password: unknown,
    stored: StoredPassword | undefined,
    options: RunOptions = {},
  ): Promise<boolean> {
    const text = normalizePassword(password);
    const isUsable = text !== undefined && stored !== undefined && this.#canVerify(stored);
    const attempt = isUsable
      ? { password: text, hash: stored.hash, pepper: this.#peppers.get(stored.pepperVersion) }
      : { password: text ?? 'unusable', hash: this.#dummyHash, pepper: this.#current.pepper };
    const matches = await this.#options.threads.run('verifyPassword', attempt, options);
    return matches && isUsable;
  }

  /** At the present cost and pepper. Throws `invalid_request` for what cannot be a password. */
  async hash(password: string, options: RunOptions = {}): Promise<StoredPassword> {
    const { threads, cost } = this.#options;
    const { pepper, pepperVersion } = this.#current;
    const text = normalizePassword(password) ?? refusePassword(lengthRule);
    const hash = await threads.run('hashPassword', { password: text, cost, pepper }, options);
    return { hash, pepperVersion };
  }

  /** Whether a new hash of the same password would be made in another way. */
  needsRehash({ hash, pepperVersion }: StoredPassword): boolean {
    const digest = parseDigest(hash);
    if (digest === undefined || pepperVersion !== this.#current.pepperVersion) return true;
    const { memoryKib, passes, lanes } = this.#options.cost;
    const hasCurrentCost =
      digest.cost.memoryKib === memoryKib &&
      digest.cost.passes === passes &&
      digest.cost.lanes === lanes;
    return !hasCurrentCost || digest.saltBytes !== 16 || digest.tagBytes !== 32;
  }

  /**
   * The password, fit to be set. Throws `invalid_request` saying what is wrong: not text of 1 to 512
   * bytes, too short, the username itself, or known to everybody.
   */
  validate(password: unknown, username: string): string {
    const { lengthMin } = this.#options;
    const text = normalizePassword(password) ?? refusePassword(lengthRule);
    if ([...text].length < lengthMin) refusePassword(`must have ${lengthMin} characters or more`);
    const key = toUsernameKey(text);
    if (key !== undefined && key === toUsernameKey(username))
      refusePassword('must not be the username');
    if (commonPasswords.has(text.toLowerCase())) refusePassword('is too common');
    return text;
  }

  #canVerify({ hash, pepperVersion }: StoredPassword): boolean {
    return this.#peppers.has(pepperVersion) && parseDigest(hash) !== undefined;
  }
}

const lengthRule = `must be well-formed text of 1 to ${bytesMax} bytes`;

/** In form NFKC; undefined for what cannot be a password. */
function normalizePassword(password: unknown): string | undefined {
  // What can shrink to the limit has 4 units a byte at most; more is not worth normalising.
  if (typeof password !== 'string' || password.length > 4 * bytesMax) return undefined;
  // Halves of surrogate pairs would all be encoded alike: one would do for the other.
  if (/\p{Surrogate}/u.test(password)) return undefined;
  const text = password.normalize('NFKC');
  const bytes = Buffer.byteLength(text);
  return bytes >= 1 && bytes <= bytesMax ? text : undefined;
}

function refusePassword(what: string): never {
  throw new Failure('invalid_request', `Cannot use password: it ${what}`, {
    info: { body: ['password'] },
  });
}
