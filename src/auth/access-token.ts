import jwt from 'jsonwebtoken';
import type { Clock } from '../clock.js';
import { Failure } from '../errors.js';
import type { Pool } from '../workers/pool.js';
import type { AuthJobs } from './jobs.js';
import type { KeyRing, VerifyingKey } from './key-ring.js';

export interface AccessTokensOptions {
  readonly ring: KeyRing;
  /** Its threads sign, with the signing key of the same ring. */
  readonly threads: Pick<Pool<AuthJobs>, 'run'>;
  readonly audience: string;
  readonly issuer: string;
  /** 1,000 or more. */
  readonly lifeMs: number;
  /** How far the clocks of processes may be apart. 0 to 300,000. */
  readonly clockToleranceMs: number;
  readonly wallClock?: Clock;
}

/** Who a new token speaks for. */
export interface AccessSubject {
  readonly userId: string;
  readonly sessionId: string;
  readonly firstName: string;
  readonly lastName: string;
  /** Tokens issued before are void; this one is not, though it may be of the same second. */
  readonly notBeforeSeconds?: number;
}

export interface AccessClaims {
  readonly userId: string;
  /** Undefined in tokens of servers that did not know sessions. */
  readonly sessionId: string | undefined;
  /** Seconds. */
  readonly issuedAt: number;
  /** Seconds. */
  readonly expiresAt: number;
}

const lengthMax = 8192;

/**
 * Access tokens: JWTs, signed in the auth threads, verified at once.
 *
 * Header `{ alg, typ: "JWT", kid }`; claims `firstName, lastName, sid, sub, iat, exp, aud, iss`.
 * Spec: RFC 7519, RFC 8725 (best practice: one algorithm a key, every claim required and checked).
 */
export class AccessTokens {
  /** Milliseconds; goes out as `accessTokenExpiresIn`. */
  readonly lifeMs: number;
  readonly #options: AccessTokensOptions;
  readonly #wallClock: Clock;
  readonly #toleranceSeconds: number;

  /** Throws an Error for options that would switch a check off. */
  constructor(options: AccessTokensOptions) {
    const { audience, issuer, lifeMs, clockToleranceMs, wallClock = Date.now } = options;
    const isNamed = audience !== '' && issuer !== '';
    const isBounded =
      isIntegerBetween(lifeMs, 1000) && isIntegerBetween(clockToleranceMs, 0, 300_000);
    // The package takes '' for "any", and adds a tolerance that is text to the end of `exp`.
    if (!isNamed || !isBounded) throw new Error('Cannot make access tokens: options out of range');
    this.lifeMs = lifeMs;
    this.#options = options;
    this.#wallClock = wallClock;
    this.#toleranceSeconds = clockToleranceMs / 1000;
  }

  /** Throws `service_unavailable` when the threads have too much to do. */
  async sign(subject: AccessSubject): Promise<string> {
    const { threads, audience, issuer } = this.#options;
    const { userId, sessionId, firstName, lastName, notBeforeSeconds = 0 } = subject;
    const issuedAt = Math.max(this.#nowSeconds(), notBeforeSeconds);
    const expiresAt = issuedAt + Math.floor(this.lifeMs / 1000);
    const times = { iat: issuedAt, exp: expiresAt };
    const names = { firstName, lastName, sid: sessionId, sub: userId };
    return threads.run('signAccessToken', { ...names, ...times, aud: audience, iss: issuer });
  }

  /**
   * Throws `expired_token` for a token that was good once, `invalid_token` for all else, never
   * anything else. A token that lives longer than tokens do now is invalid: when the setting is
   * lowered, it holds for tokens already out.
   */
  verify(token: string): AccessClaims {
    try {
      const key = findKey(token, this.#options.ring);
      return this.#parseClaims(this.#verifySignature(token, key));
    } catch (cause) {
      // Not by the package's names of errors: it also throws SyntaxError and TypeError.
      if (cause instanceof jwt.TokenExpiredError) {
        throw new Failure('expired_token', 'Cannot authenticate: the access token is expired');
      }
      const message = 'Cannot authenticate: the access token is invalid';
      throw new Failure('invalid_token', message, { cause });
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

  /** What the package leaves open: it takes claims that are missing, and lists of audiences. */
  #parseClaims(payload: unknown): AccessClaims {
    const { sub, sid, iat, exp, aud, iss } = payload as Record<string, unknown>;
    const { audience, issuer } = this.#options;
    if (aud !== audience || iss !== issuer) throw new Error('Wrong audience or issuer');
    if (!isId(sub) || !(sid === undefined || isId(sid))) throw new Error('Malformed sub or sid');
    if (!isIntegerBetween(iat) || !isIntegerBetween(exp)) throw new Error('Malformed iat or exp');
    const tolerance = this.#toleranceSeconds;
    // A token signed within the second of a logout everywhere is dated one second ahead.
    if (iat > this.#nowSeconds() + Math.max(1, tolerance)) throw new Error('Not issued yet');
    if (exp <= iat || exp - iat > this.lifeMs / 1000 + tolerance)
      throw new Error('Lifetime out of range');
    return { userId: sub, sessionId: sid, issuedAt: iat, expiresAt: exp };
  }

  #nowSeconds(): number {
    return Math.floor(this.#wallClock() / 1000);
  }
}

/** The key a token names, once its form is in order and before anything in it is believed. */
function findKey(token: unknown, ring: KeyRing): VerifyingKey {
  if (typeof token !== 'string' || token.length > lengthMax) throw new Error('Too long');
  const segments = token.split('.');
  if (segments.length !== 3 || !segments.every(isCanonical)) throw new Error('Not three segments');
  const text = Buffer.from(segments[0] ?? '', 'base64url').toString();
  const header: unknown = JSON.parse(text);
  if (typeof header !== 'object' || header === null) throw new Error('Header is not an object');
  // Our headers are compact. A member that is there twice would read differently elsewhere.
  if (JSON.stringify(header) !== text) throw new Error('Header is not in compact form');
  const { alg, typ = 'JWT', crit, kid } = header as Record<string, unknown>;
  if (typ !== 'JWT' || crit !== undefined) throw new Error('Unsupported typ or crit');
  const key = ring.find(kid);
  if (key === undefined || alg !== key.algorithm) throw new Error('Unknown key or wrong algorithm');
  return key;
}

/** One spelling per token: other decoders forgive characters and bits that mean nothing. */
function isCanonical(segment: string): boolean {
  const isPlain = segment !== '' && /^[\w-]+$/.test(segment);
  return isPlain && Buffer.from(segment, 'base64url').toString('base64url') === segment;
}

/** Ids of users and sessions, as they may go into a query. */
function isId(value: unknown): value is string {
  return typeof value === 'string' && /^[\w-]{1,64}$/.test(value);
}

function isIntegerBetween(value: unknown, min = 0, max = Number.MAX_SAFE_INTEGER): value is number {
  return Number.isSafeInteger(value) && Number(value) >= min && Number(value) <= max;
}
