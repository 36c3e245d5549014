import { hash as digest } from 'node:crypto';
import jwt from 'jsonwebtoken';
import type { Clock } from '../clock.js';
import { Failure } from '../errors.js';
import { LruMap } from '../util/lru-map.js';
import type { Pool } from '../workers/pool.js';
import type { AuthJobs } from './jobs.js';
import type { KeyRing, VerifyingKey } from './key-ring.js';

export interface AccessTokensOptions {
  readonly ring: KeyRing;
  /** The worker threads that sign, with the signing key of `ring`. */
  readonly threads: Pick<Pool<AuthJobs>, 'run'>;
  readonly audience: string;
  readonly issuer: string;
  /** How long a new token is valid. 1,000 or more. */
  readonly lifeMs: number;
  /** How long after its `exp` a token is still valid, because clocks differ. 0 to 300,000. */
  readonly clockToleranceMs: number;
  readonly wallClock?: Clock;
}

/** The user and session that a new token represents. */
export interface AccessSubject {
  readonly userId: string;
  readonly sessionId: string;
  readonly firstName: string;
  readonly lastName: string;
}

export interface AccessClaims {
  readonly userId: string;
  /** Undefined in tokens issued by servers without sessions. */
  readonly sessionId: string | undefined;
  /** Epoch seconds. */
  readonly issuedAt: number;
  /** Epoch seconds. */
  readonly expiresAt: number;
}

const lengthMax = 8192;
const verifiedMax = 10_000;

const admitAll = () => () => {};

/**
 * Signs access tokens (JWTs) in the auth threads and verifies them synchronously.
 *
 * Header `{ alg, typ: "JWT", kid }`; claims `firstName, lastName, sid, sub, iat, exp, aud, iss`.
 * Spec: RFC 7519, RFC 8725 (one algorithm per key, every claim required and checked).
 */
export class AccessTokens {
  /** Milliseconds; sent as `accessTokenExpiresIn`. */
  readonly lifeMs: number;
  readonly #options: AccessTokensOptions;
  readonly #wallClock: Clock;
  readonly #toleranceSeconds: number;
  /** SHA-256 hashes of the newest tokens that this process signed or verified; only for key pairs. */
  readonly #verified = new LruMap<string, true>(verifiedMax);

  /** Throws an Error for options that would disable a check. */
  constructor(options: AccessTokensOptions) {
    const { audience, issuer, lifeMs, clockToleranceMs, wallClock = Date.now } = options;
    const hasNames = audience !== '' && issuer !== '';
    const areTimesInRange =
      isIntegerBetween(lifeMs, 1000) && isIntegerBetween(clockToleranceMs, 0, 300_000);
    // `jsonwebtoken` treats '' as "any", and concatenates a tolerance that is a string to `exp`.
    if (!hasNames || !areTimesInRange)
      throw new Error('Cannot make access tokens: options out of range');
    this.lifeMs = lifeMs;
    this.#options = options;
    this.#wallClock = wallClock;
    this.#toleranceSeconds = clockToleranceMs / 1000;
  }

  /** Signs a new token. Throws `service_unavailable` when the threads' queue is full or too slow. */
  async sign(subject: AccessSubject): Promise<string> {
    const { threads, audience, issuer } = this.#options;
    const { userId, sessionId, firstName, lastName } = subject;
    const issuedAt = this.#nowSeconds();
    const expiresAt = issuedAt + Math.floor(this.lifeMs / 1000);
    const times = { iat: issuedAt, exp: expiresAt };
    const identity = { firstName, lastName, sid: sessionId, sub: userId };
    const claims = { ...identity, ...times, aud: audience, iss: issuer };
    const token = await threads.run('signAccessToken', claims);
    if (isExpensive(this.#options.ring.signingKey))
      this.#verified.set(digest('sha256', token), true);
    return token;
  }

  /**
   * Returns the claims. Throws `expired_token` for a token with a valid signature whose `exp` has passed,
   * whatever its audience and issuer, and `invalid_token` in every other case.
   *
   * A token whose lifetime exceeds `lifeMs` and the tolerance is invalid, so a lowered setting also
   * applies to tokens issued earlier. A token issued in the future is valid: the signature proves that
   * Herald issued it, by a clock that was ahead.
   *
   * Verifying a signature with a public key takes up to a millisecond. Therefore `admit` is called first,
   * unless this process has signed or verified the token before. `verify` rethrows an error of `admit`.
   * `admit` returns a function, which is called when the signature is valid.
   */
  verify(token: string, admit: () => () => void = admitAll): AccessClaims {
    const key = this.#findKey(token);
    const tokenHash = isExpensive(key) ? digest('sha256', token) : undefined;
    const isAdmitted = tokenHash === undefined || this.#verified.use(tokenHash) === true;
    const markVerified = isAdmitted ? undefined : admit();
    try {
      const claims = this.#parseClaims(this.#verifySignature(token, key));
      if (tokenHash !== undefined) this.#verified.set(tokenHash, true);
      markVerified?.();
      return claims;
    } catch (cause) {
      if (!(cause instanceof jwt.TokenExpiredError)) throw invalidToken(cause);
      markVerified?.();
      throw new Failure('expired_token', 'Cannot authenticate: the access token is expired');
    }
  }

  #findKey(token: string): VerifyingKey {
    try {
      return findKey(token, this.#options.ring);
    } catch (cause) {
      throw invalidToken(cause);
    }
  }

  #verifySignature(token: string, { key, algorithm }: VerifyingKey): unknown {
    const { issuer, audience } = this.#options;
    return jwt.verify(token, key, {
      algorithms: [algorithm],
      issuer,
      audience,
      clockTolerance: this.#toleranceSeconds,
      clockTimestamp: this.#nowSeconds(),
    });
  }

  /** Checks what `jsonwebtoken` does not: it accepts missing claims and lists of audiences. */
  #parseClaims(payload: unknown): AccessClaims {
    const { sub, sid, iat, exp, aud, iss } = payload as Record<string, unknown>;
    const { audience, issuer } = this.#options;
    if (aud !== audience || iss !== issuer) throw new Error('Wrong audience or issuer');
    if (!isId(sub) || !(sid === undefined || isId(sid))) throw new Error('Malformed sub or sid');
    if (!isIntegerBetween(iat) || !isIntegerBetween(exp)) throw new Error('Malformed iat or exp');
    const tolerance = this.#toleranceSeconds;
    if (exp <= iat || exp - iat > this.lifeMs / 1000 + tolerance)
      throw new Error('Lifetime out of range');
    return { userId: sub, sessionId: sid, issuedAt: iat, expiresAt: exp };
  }

  #nowSeconds(): number {
    return Math.floor(this.#wallClock() / 1000);
  }
}

/** Creates the failure for any error of a verification, including SyntaxError and TypeError of the package. */
function invalidToken(cause: unknown): Failure {
  return new Failure('invalid_token', 'Cannot authenticate: the access token is invalid', {
    cause,
  });
}

/** Returns whether verifying with this key is slower than the rest of a request. A secret takes 10 µs. */
function isExpensive({ key }: VerifyingKey): boolean {
  return key.type !== 'secret';
}

/** Returns the key that the header names. Throws for a malformed token; trusts no claim. */
function findKey(token: unknown, ring: KeyRing): VerifyingKey {
  if (typeof token !== 'string' || token.length > lengthMax)
    throw new Error('Not a text, or too long');
  const segments = token.split('.');
  if (segments.length !== 3 || !segments.every(isCanonical)) throw new Error('Not three segments');
  const text = Buffer.from(segments[0] ?? '', 'base64url').toString();
  const header: unknown = JSON.parse(text);
  if (typeof header !== 'object' || header === null) throw new Error('Header is not an object');
  // Issued headers are compact. Other parsers may read a duplicate member differently.
  if (JSON.stringify(header) !== text) throw new Error('Header is not in compact form');
  const { alg, typ = 'JWT', crit, kid } = header as Record<string, unknown>;
  if (typ !== 'JWT' || crit !== undefined) throw new Error('Unsupported typ or crit');
  const key = ring.find(kid);
  if (key === undefined || alg !== key.algorithm) throw new Error('Unknown key or wrong algorithm');
  return key;
}

/**
 * Returns whether the segment is canonical base64url, so that a token has one spelling: lenient decoders
 * ignore stray characters and unused bits.
 */
function isCanonical(segment: string): boolean {
  const isPlain = segment !== '' && /^[\w-]+$/.test(segment);
  return isPlain && Buffer.from(segment, 'base64url').toString('base64url') === segment;
}

/** Accepts ids of users and sessions that are safe to use in a query. */
function isId(value: unknown): value is string {
  return typeof value === 'string' && /^[\w-]{1,64}$/.test(value);
}

function isIntegerBetween(value: unknown, min = 0, max = Number.MAX_SAFE_INTEGER): value is number {
  return Number.isSafeInteger(value) && Number(value) >= min && Number(value) <= max;
}
