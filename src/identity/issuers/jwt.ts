import type { KeyObject } from 'node:crypto';
import { decodeJwt, decodeProtectedHeader, errors, type JWTPayload, jwtVerify } from 'jose';
import type { TrustedIssuer } from '../../config/trusted-issuers.js';
import { Failure } from '../../errors.js';
import { JwtError, type RefusalReason } from './jwt-error.js';
import type { TokenHeader } from './keys.js';

export interface VerifyOptions {
  readonly issuer: TrustedIssuer;
  /** A token is valid from this long before `nbf` until this long after `exp`, because clocks differ. */
  readonly clockToleranceMs: number;
  /** The current time, epoch ms. */
  readonly now: number;
}

const tokenLengthMax = 8192;

/** Returns the unverified `iss` of a token; undefined for text that is not a JWT or is longer than 8 KiB. */
export function readIssuerName(token: string): string | undefined {
  if (token.length > tokenLengthMax) return undefined;
  try {
    return decodeJwt(token).iss;
  } catch {
    return undefined; // The function throws only for a text that is not a JWT.
  }
}

/**
 * Returns the unverified members of a header that select the key. Throws a JwtError for an algorithm that the
 * issuer may not use, `crit`, or a `kid` that is not a text. Other members, such as `jku` and `jwk`, are not used.
 */
export function readHeader(token: string, algorithms: readonly string[]): TokenHeader {
  // The package ignores white space within base64url.
  if (!/^[\w-]+\.[\w-]+\.[\w-]+$/.test(token))
    throw new JwtError('malformed', 'Not three segments of base64url');
  const { alg, kid, crit } = decodeProtectedHeader(token);
  if (alg === undefined || !algorithms.includes(alg))
    throw new JwtError('algorithm', 'Wrong algorithm');
  if (crit !== undefined) throw new JwtError('malformed', 'Unsupported crit');
  if (kid !== undefined && typeof kid !== 'string')
    throw new JwtError('malformed', 'Malformed kid');
  return { algorithm: alg, keyId: kid };
}

/**
 * Returns the claims of a token that one of the keys has signed. Throws `expired_token` for an expired token, and
 * any other error for a token that is invalid. Spec: RFC 7519 §7.2, RFC 8725 §3.
 */
export async function verifyJwt(
  token: string,
  keys: readonly KeyObject[],
  options: VerifyOptions,
): Promise<JWTPayload> {
  let wrongSignature: unknown = new JwtError('key', 'No key fits the algorithm');
  for (const key of keys) {
    try {
      return await verifyWithKey(token, key, options);
    } catch (cause) {
      if (cause instanceof errors.JWTExpired) {
        throw new Failure('expired_token', 'Cannot authenticate: the access token is expired');
      }
      if (!(cause instanceof errors.JWSSignatureVerificationFailed)) throw cause;
      wrongSignature = cause;
    }
  }
  throw wrongSignature;
}

async function verifyWithKey(
  token: string,
  key: KeyObject,
  { issuer, clockToleranceMs, now }: VerifyOptions,
): Promise<JWTPayload> {
  const { payload } = await jwtVerify(token, key, {
    algorithms: [...issuer.algorithms],
    issuer: issuer.issuer,
    audience: [...issuer.audiences],
    requiredClaims: ['exp'],
    clockTolerance: clockToleranceMs / 1000,
    currentDate: new Date(now),
  });
  return payload;
}

/** Returns the reason of an error that the verification of a JWT has thrown. Uses no text of the JWT. */
export function getRefusalReason(cause: unknown): RefusalReason {
  if (cause instanceof JwtError) return cause.reason;
  if (cause instanceof Failure && cause.name === 'expired_token') return 'expired';
  if (cause instanceof errors.JWSSignatureVerificationFailed) return 'signature';
  if (cause instanceof errors.JWTClaimValidationFailed) {
    if (cause.claim === 'aud') return 'audience';
    if (cause.claim === 'exp') return 'no_expiry';
    if (cause.claim === 'nbf' && cause.reason === 'check_failed') return 'not_before';
  }
  return 'malformed';
}
