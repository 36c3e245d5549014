import type { TrustedIssuer } from '../../config/trusted-issuers.js';
import { userIdPattern } from '../../events/audience.js';
import { mergeRights, parseTopicRights, type TopicRights } from '../../events/topic-rights.js';
import { JwtError } from './jwt-error.js';

/** A user whom a trusted issuer has authenticated. Herald has no account or session for this user. */
export interface ForeignUser {
  /** The concatenation of `userPrefix` and the user claim. Matches `userIdPattern`. */
  readonly userId: string;
  /** The `iss` of the token. */
  readonly issuer: string;
  /** The claim `sid` if it is a text of at most 255 characters, otherwise ''. */
  readonly sessionLabel: string;
  /** The `iat` of the token, epoch ms, rounded down. Undefined if the token has none. */
  readonly issuedAt: number | undefined;
  /** The `exp` of the token, epoch ms, rounded down. The token is accepted until the clock tolerance after it. */
  readonly expiresAt: number;
  /** What the issuer and the rights claim allow. */
  readonly rights: TopicRights;
  /** Why the rights claim is not valid, and therefore allows nothing. Completes a message such as "the claim …". */
  readonly rightsProblem?: string;
}

export interface LifeLimits {
  /** The longest life of a token. */
  readonly tokenLifeMaxMs: number;
  readonly clockToleranceMs: number;
  /** The current time, epoch ms. */
  readonly now: number;
}

const sessionLabelLengthMax = 255;

/**
 * Returns the user of verified claims. Throws a JwtError for an invalid user id, a life that is too long, and a
 * token that was issued in the future. A disconnect refuses tokens by their time of issue, so a token from the
 * future would not be refused.
 */
export function toForeignUser(
  claims: Readonly<Record<string, unknown>>,
  settings: TrustedIssuer,
  limits: LifeLimits,
): ForeignUser {
  const { issuer, userClaim, userPrefix } = settings;
  const { exp, iat, sid } = claims;
  const user = claims[userClaim];
  const userId = `${userPrefix}${user}`;
  if (typeof user !== 'string' || user === '' || !userIdPattern.test(userId)) {
    throw new JwtError('user_claim', 'Invalid user claim');
  }
  const expiresAt = Number(exp) * 1000;
  const issuedAt = iat === undefined ? undefined : Number(iat) * 1000;
  if (!isLifeAllowed(issuedAt, expiresAt, limits))
    throw new JwtError('lifetime', 'Lifetime out of range');
  if (issuedAt !== undefined && issuedAt > limits.now + limits.clockToleranceMs)
    throw new JwtError('issued_in_future', 'Issued in the future');
  return {
    userId,
    issuer,
    sessionLabel: typeof sid === 'string' && sid.length <= sessionLabelLengthMax ? sid : '',
    issuedAt: issuedAt === undefined ? undefined : Math.floor(issuedAt),
    expiresAt: Math.floor(expiresAt),
    ...readRights(claims, settings),
  };
}

/** Reads the rights claim. One that is not valid refuses no token, because its user can do without topics. */
function readRights(
  claims: Readonly<Record<string, unknown>>,
  { rightsClaim, rights }: TrustedIssuer,
): Pick<ForeignUser, 'rights' | 'rightsProblem'> {
  if (rightsClaim === undefined || !Object.hasOwn(claims, rightsClaim)) return { rights };
  const claimed = parseTopicRights(claims[rightsClaim]);
  if (typeof claimed === 'string') return { rights, rightsProblem: claimed };
  return { rights: mergeRights(rights, claimed) };
}

/** Returns whether a token lives for at most the allowed time. */
function isLifeAllowed(
  issuedAt: number | undefined,
  expiresAt: number,
  { tokenLifeMaxMs, now }: LifeLimits,
): boolean {
  if (issuedAt === undefined) return expiresAt - now <= tokenLifeMaxMs;
  const lifeMs = expiresAt - issuedAt;
  return lifeMs > 0 && lifeMs <= tokenLifeMaxMs;
}
