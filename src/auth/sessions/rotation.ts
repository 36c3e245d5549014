import type { Clock } from '../../clock.js';
import type { Database } from '../../db/database.js';
import { Failure } from '../../errors.js';
import type { Client } from '../../http/client.js';
import type { SignAccessToken } from '../access-token-signer.js';
import {
  hashesEqual,
  hashVerifier,
  openSuccessor,
  type RefreshToken,
  type RefreshTokens,
  sealSuccessor,
} from '../refresh-token.js';
import { type StoredSession, swapToken } from './session-table.js';

export interface RotationContext {
  readonly db: Database;
  readonly findBySelector: (selector: string) => Promise<StoredSession | undefined>;
  /** Ends a session whose token was reused. Returns false when it had already ended. */
  readonly endReused: (sessionId: string) => Promise<boolean>;
  readonly refreshTokens: RefreshTokens;
  readonly wallClock: Clock;
  readonly graceMs: number;
  readonly idleMs: number;
}

/** The outcome of a rotation. Of the rejections, only `reuse` has an effect: it ends the session. */
export type Rotation =
  | {
      readonly outcome: 'rotated' | 'replayed';
      readonly session: StoredSession;
      readonly successor: RefreshToken;
      readonly accessToken: string;
      readonly idleExpiresAt: number;
    }
  | {
      readonly outcome: 'unknown' | 'revoked' | 'disabled' | 'expired' | 'forged';
      readonly session?: StoredSession;
    }
  | {
      readonly outcome: 'reuse';
      readonly session: StoredSession;
      /** Whether this rotation ended the session; false when it had already ended. */
      readonly hasEndedSession: boolean;
    };

const attemptsMax = 3;

/**
 * Exchanges a refresh token for its successor with one compare-and-swap UPDATE and no transaction.
 *
 * If several callers present the same token, one rotates it. The others, and a client that did not
 * receive the response, present the token that was just replaced. For `graceMs` after the rotation they
 * get the same successor, which is stored encrypted under a key derived from the replaced token. This
 * grace period is never extended. After it, presenting the replaced token is reuse, and so is presenting
 * an even older token at any time: either the owner or a thief has a newer token, and Herald cannot tell
 * which, so the session ends.
 *
 * `sign` is called before the token is spent: if it fails, nothing has changed and the client may
 * retry at any time. Throws `service_unavailable` when the UPDATE matches no row three times in a row
 * although the session was live and the token current.
 *
 * Spec: RFC 9700 §4.14.2; FAPI 2.0 §5.3.2.1 (a retry with the previous token has to succeed).
 */
export async function rotate(
  context: RotationContext,
  token: RefreshToken,
  client: Client,
  sign: SignAccessToken,
): Promise<Rotation> {
  const { findBySelector, refreshTokens, wallClock } = context;
  const hash = hashVerifier(token.verifier);
  for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
    const session = await findBySelector(token.selector);
    if (session === undefined) return { outcome: 'unknown' };
    const endState = getEndState(session, wallClock());
    if (endState !== undefined) return { outcome: endState, session };
    if (hashesEqual(hash, session.currentHash)) {
      const rotated = await rotateCurrent(context, session, token, client, sign);
      if (rotated !== undefined) return rotated;
    } else if (isWithinGrace(session, hash, wallClock())) {
      return replaySuccessor(session, session.sealedSuccessor, token, sign);
    } else if (refreshTokens.verifyMac(token)) {
      const hasEndedSession = await context.endReused(session.id);
      return { outcome: 'reuse', session, hasEndedSession };
    } else {
      return { outcome: 'forged', session };
    }
  }
  const message = 'Cannot refresh: the session is being refreshed by others';
  throw new Failure('service_unavailable', message, { retryAfterMs: 1000 });
}

/** Returns why the session cannot be used, or undefined while it is live. */
export function getEndState(
  session: StoredSession,
  now: number,
): 'revoked' | 'expired' | 'disabled' | undefined {
  if (session.revokedAt !== null) return 'revoked';
  if (session.idleExpiresAt <= now || session.absoluteExpiresAt <= now) return 'expired';
  return session.isUserDisabled ? 'disabled' : undefined;
}

/** Rotates the current token. Returns undefined when a concurrent request has rotated it first. */
async function rotateCurrent(
  { db, refreshTokens, wallClock, graceMs, idleMs }: RotationContext,
  session: StoredSession,
  token: RefreshToken,
  client: Client,
  sign: SignAccessToken,
): Promise<Rotation | undefined> {
  const accessToken = await sign(session);
  const successor = refreshTokens.mint(session.selector);
  const now = wallClock(); // Read after the signature, which may have waited in a queue.
  const idleExpiresAt = Math.min(now + idleMs, session.absoluteExpiresAt);
  const isSwapped = await swapToken(db, {
    selector: session.selector,
    fromHash: session.currentHash,
    toHash: hashVerifier(successor.verifier),
    // A grace of 0 allows no replay, not even in the same millisecond.
    sealedSuccessor: graceMs === 0 ? null : sealSuccessor(successor, token),
    previousValidUntil: now + graceMs,
    now,
    idleExpiresAt,
    client,
  });
  if (!isSwapped) return undefined;
  return { outcome: 'rotated', session, successor, accessToken, idleExpiresAt };
}

function isWithinGrace(
  session: StoredSession,
  hash: string,
  now: number,
): session is StoredSession & { readonly sealedSuccessor: string } {
  return (
    hashesEqual(hash, session.previousHash) &&
    now <= session.previousValidUntil &&
    session.sealedSuccessor !== null
  );
}

async function replaySuccessor(
  session: StoredSession,
  sealedSuccessor: string,
  token: RefreshToken,
  sign: SignAccessToken,
): Promise<Rotation> {
  const successor = openSuccessor(sealedSuccessor, token);
  const accessToken = await sign(session);
  const { idleExpiresAt } = session;
  return { outcome: 'replayed', session, successor, accessToken, idleExpiresAt };
}
