import { randomBytes } from 'node:crypto';
import { Failure } from '../../errors.js';
import type { Pool, RunOptions } from '../../workers/pool.js';
import type { AuthJobs } from '../jobs.js';
import { toUsernameKey } from '../username.js';
import { type Argon2Cost, isWithinBounds, parseDigest } from './argon2-digest.js';
import { isCommonPassword } from './common-passwords.js';

/** A key that is mixed into every hash and kept outside the database. */
export interface Pepper {
  /** 1 to 32,767; stored beside each hash. */
  readonly version: number;
  readonly key: Uint8Array;
}

export interface PasswordsOptions {
  readonly threads: Pick<Pool<AuthJobs>, 'run'>;
  /** Cost of new hashes. */
  readonly cost: Argon2Cost;
  /** Minimum length in characters (code points). */
  readonly lengthMin: number;
  /** Pepper of new hashes. Default: none. */
  readonly pepper?: Pepper | undefined;
  /** Verifies hashes from before a change of the pepper or, during a change, hashes with the next pepper. */
  readonly previousPepper?: Pepper | undefined;
}

/** A stored hash. Version 0 means no pepper. */
export interface StoredPassword {
  readonly hash: string;
  readonly pepperVersion: number;
}

const bytesMax = 512;

/**
 * Validates, hashes and verifies passwords.
 *
 * Passwords are normalised to Unicode form NFKC, so the keyboard's encoding of `é` does not matter.
 * A password is text of 1 to 512 bytes (UTF-8, after normalisation) and is never truncated.
 */
export class Passwords {
  readonly #options: PasswordsOptions;
  readonly #peppers = new Map<number, Uint8Array | undefined>([[0, undefined]]);
  readonly #currentPepper: {
    readonly pepper: Uint8Array | undefined;
    readonly pepperVersion: number;
  };
  #dummyHash = '';

  private constructor(options: PasswordsOptions) {
    const { pepper, previousPepper } = options;
    for (const given of [previousPepper, pepper]) {
      // Copied, because a small Buffer is a view of a shared pool, which would be sent to the thread too.
      if (given !== undefined) this.#peppers.set(given.version, new Uint8Array(given.key));
    }
    const pepperVersion = pepper?.version ?? 0; // 0: hashes have no pepper.
    this.#options = options;
    this.#currentPepper = { pepper: this.#peppers.get(pepperVersion), pepperVersion };
  }

  /** Creates the dummy hash at the current cost. Throws an Error for an invalid cost or peppers. */
  static async open(options: PasswordsOptions): Promise<Passwords> {
    const { cost, pepper, previousPepper } = options;
    if (!isWithinBounds(cost)) throw new Error('Cannot open passwords: cost is out of bounds');
    const isSameVersion = pepper !== undefined && pepper.version === previousPepper?.version;
    if (isSameVersion || pepper?.version === 0 || previousPepper?.version === 0) {
      throw new Error('Cannot open passwords: peppers must have different versions, 1 or more');
    }
    const passwords = new Passwords(options);
    passwords.#dummyHash = (await passwords.hash(randomBytes(32).toString('base64'))).hash;
    return passwords;
  }

  /**
   * Whether `password` is the password of `stored`. Always performs one argon2 verification: without a
   * usable hash or password it verifies against the dummy hash and returns false.
   *
   * Throws `service_unavailable` when the queue of the threads is full or too slow; rejects with
   * the reason of `signal` when it aborts before the verification starts.
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
      : { password: text ?? 'unusable', hash: this.#dummyHash, pepper: this.#currentPepper.pepper };
    const matches = await this.#options.threads.run('verifyPassword', attempt, options);
    return matches && isUsable;
  }

  /** Hashes at the current cost and pepper. Throws `invalid_request` for an invalid password. */
  async hash(password: string, options: RunOptions = {}): Promise<StoredPassword> {
    const { threads, cost } = this.#options;
    const { pepper, pepperVersion } = this.#currentPepper;
    const text = normalizePassword(password) ?? refusePassword(lengthRule);
    const hash = await threads.run('hashPassword', { password: text, cost, pepper }, options);
    return { hash, pepperVersion };
  }

  /**
   * Whether the hash differs in cost, pepper, salt length or tag length from a new hash. False for a hash
   * with a newer pepper than the current one, because during a rolling change other processes already use it.
   */
  needsRehash({ hash, pepperVersion }: StoredPassword): boolean {
    const digest = parseDigest(hash);
    const { pepperVersion: currentVersion } = this.#currentPepper;
    // Version 0 is not compared: without a current pepper, a hash with any pepper is rehashed.
    if (currentVersion > 0 && pepperVersion > currentVersion) return false;
    if (digest === undefined || pepperVersion !== currentVersion) return true;
    const { memoryKib, passes, lanes } = this.#options.cost;
    const hasCurrentCost =
      digest.cost.memoryKib === memoryKib &&
      digest.cost.passes === passes &&
      digest.cost.lanes === lanes;
    return !hasCurrentCost || digest.saltBytes !== 16 || digest.tagBytes !== 32;
  }

  /**
   * Returns the normalised password when it may be set. Throws `invalid_request` with the reason:
   * not text of 1 to 512 bytes, only white space, too short, equal to the username, or too common.
   */
  validate(password: unknown, username: string): string {
    const { lengthMin } = this.#options;
    const text = normalizePassword(password) ?? refusePassword(lengthRule);
    if (text.trim() === '') refusePassword('must not be blank');
    if ([...text].length < lengthMin) refusePassword(`must have ${lengthMin} characters or more`);
    const key = toUsernameKey(text);
    if (key !== undefined && key === toUsernameKey(username))
      refusePassword('must not be the username');
    if (isCommonPassword(text)) refusePassword('is too common');
    return text;
  }

  #canVerify({ hash, pepperVersion }: StoredPassword): boolean {
    return this.#peppers.has(pepperVersion) && parseDigest(hash) !== undefined;
  }
}

const lengthRule = `must be well-formed text of 1 to ${bytesMax} bytes`;

/** Returns the password in form NFKC, or undefined for an invalid one. */
function normalizePassword(password: unknown): string | undefined {
  // Normalised text has at least one byte per 4 UTF-16 units of the original, so longer text cannot fit.
  if (typeof password !== 'string' || password.length > 4 * bytesMax) return undefined;
  // Lone surrogates all encode to the same bytes, so different passwords would match.
  if (/\p{Surrogate}/u.test(password)) return undefined;
  const text = password.normalize('NFKC');
  const bytes = Buffer.byteLength(text);
  return bytes >= 1 && bytes <= bytesMax ? text : undefined;
}

function refusePassword(reason: string): never {
  throw new Failure('invalid_request', `Cannot use password: it ${reason}`, {
    info: { body: ['password'] },
  });
}
