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
  readGeneration,
  sealSuccessor,
} from '../refresh-token.js';
import { graceNotStarted, type StoredSession, startGrace, swapToken } from './session-table.js';

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

/** A refresh token that a client has presented. */
export interface RotationRequest {
  readonly token: RefreshToken;
  readonly client: Client;
  readonly sign: SignAccessToken;
  /** Aborts when the client disconnects. */
  readonly signal: AbortSignal;
}

/**
 * The outcome of a rotation. Of the rejections, only `reuse` has an effect: it ends the session.
 * `superseded` is a token that was replaced more than once, presented during the grace period of the last
 * replacement.
 */
export type Rotation =
  | {
      readonly outcome: 'rotated' | 'replayed';
      readonly session: StoredSession;
      readonly successor: RefreshToken;
      readonly accessToken: string;
      readonly idleExpiresAt: number;
    }
  | {
      readonly outcome: 'unknown' | 'revoked' | 'disabled' | 'expired' | 'forged' | 'superseded';
      readonly session?: StoredSession;
    }
  | {
      readonly outcome: 'reuse';
      readonly session: StoredSession;
      /** Whether this rotation ended the session; false when it had already ended. */
      readonly hasEndedSession: boolean;
    };

const attemptsMax = 3;
/** A `superseded` token is at most this many generations behind the current one. An older one is reuse. */
const supersededGenerationsMax = 8;
/** While the grace period has not started, older tokens are `superseded` for this long after the UPDATE. */
const unstartedGraceMaxMs = 60_000;

/**
 * Exchanges a refresh token for its successor with one compare-and-swap UPDATE and no transaction.
 *
 * If several callers present the same token, one rotates it. The others, and a client that did not
 * receive the response, present the token that was just replaced. They get the same successor, which is
 * stored encrypted under a key derived from the replaced token, until the grace period ends.
 *
 * The grace period lasts `graceMs` and is never extended. It starts with a second UPDATE, which a process
 * sends once it knows that the rotation is committed, if its client is still connected. It does not start
 * with the first UPDATE, because that commit may take longer than `graceMs` and its outcome may be unknown.
 * A token counts as presented when its request arrives, however long the request then waits.
 *
 * After the grace period, presenting a replaced token is reuse: either the owner or a thief has a newer
 * token, and Herald cannot tell which, so the session ends. During the grace period, an older token is only
 * refused, because it may come from a third tab. A request whose client has disconnected never ends the
 * session.
 *
 * `sign` is called before the token is spent: if it fails, nothing has changed and the client may
 * retry at any time. Throws `service_unavailable` when the UPDATE matches no row three times in a row
 * although the session was live and the token current, because the clock went back across the expiry.
 * Rejects with the reason of `signal`.
 *
 * Spec: RFC 9700 §4.14.2; FAPI 2.0 §5.3.2.1 (a retry with the previous token has to succeed).
 */
export async function rotate(
  context: RotationContext,
  request: RotationRequest,
): Promise<Rotation> {
  const { findBySelector, wallClock } = context;
  const { token, signal } = request;
  const presentedAt = wallClock();
  const hash = hashVerifier(token.verifier);
  for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
    const session = await findBySelector(token.selector);
    signal.throwIfAborted();
    if (session === undefined) return { outcome: 'unknown' };
    const endState = getEndState(session, wallClock());
    if (endState !== undefined) return { outcome: endState, session };
    if (!hashesEqual(hash, session.currentHash))
      return handleSpentToken(context, session, request, presentedAt);
    const rotated = await rotateCurrent(context, session, request);
    if (rotated !== undefined) return rotated;
  }
  const message = 'Cannot refresh: the token could not be replaced';
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
  context: RotationContext,
  session: StoredSession,
  { token, client, sign, signal }: RotationRequest,
): Promise<Rotation | undefined> {
  const { db, refreshTokens, wallClock, graceMs, idleMs } = context;
  const accessToken = await sign(session);
  const successor = refreshTokens.mint(session.selector, session.generation + 1);
  const now = wallClock(); // Read after the signature, which may have waited in a queue.
  const idleExpiresAt = Math.min(now + idleMs, session.absoluteExpiresAt);
  const toHash = hashVerifier(successor.verifier);
  signal.throwIfAborted();
  const isSwapped = await swapToken(db, {
    selector: session.selector,
    fromHash: session.currentHash,
    toHash,
    // A grace of 0 allows no replay, not even in the same millisecond.
    sealedSuccessor: graceMs === 0 ? null : sealSuccessor(successor, token),
    previousValidUntil: graceMs === 0 ? 0 : graceNotStarted,
    now,
    idleExpiresAt,
    client,
  });
  if (!isSwapped) return undefined;
  if (graceMs > 0) await tryStartGrace(context, { ...session, currentHash: toHash }, signal);
  return { outcome: 'rotated', session, successor, accessToken, idleExpiresAt };
}

/** Handles a token that is not the current one, and may never have been. */
async function handleSpentToken(
  context: RotationContext,
  session: StoredSession,
  { token, sign, signal }: RotationRequest,
  presentedAt: number,
): Promise<Rotation> {
  const { sealedSuccessor, previousHash, previousValidUntil, idleExpiresAt } = session;
  const isWithinGrace = presentedAt <= previousValidUntil;
  const isPrevious = hashesEqual(hashVerifier(token.verifier), previousHash);
  if (isPrevious && isWithinGrace && sealedSuccessor !== null) {
    const successor = openSuccessor(sealedSuccessor, token);
    const accessToken = await sign(session);
    if (previousValidUntil === graceNotStarted) await tryStartGrace(context, session, signal);
    return { outcome: 'replayed', session, successor, accessToken, idleExpiresAt };
  }
  if (!context.refreshTokens.verifyMac(token)) return { outcome: 'forged', session };
  if (isWithinGrace && isSuperseded(session, token, presentedAt))
    return { outcome: 'superseded', session };
  const hasEndedSession = await context.endReused(session.id);
  return { outcome: 'reuse', session, hasEndedSession };
}

/**
 * Whether a spent token is recent enough that another tab may still present it during the grace period of the
 * current one. Both limits exist because otherwise a thief who refreshes within every grace period, or who
 * disconnects before it starts, would never be detected.
 */
function isSuperseded(
  { generation, previousValidUntil, refreshedAt }: StoredSession,
  token: RefreshToken,
  presentedAt: number,
): boolean {
  const generationsBehind = generation - readGeneration(token);
  const hasGraceStarted = previousValidUntil !== graceNotStarted;
  return (
    generationsBehind >= 1 &&
    generationsBehind <= supersededGenerationsMax &&
    (hasGraceStarted || presentedAt <= refreshedAt + unstartedGraceMaxMs)
  );
}

/**
 * Starts the grace period of a committed rotation, unless the client has disconnected: such a client did
 * not get the successor, and will present the spent token again. Never rejects.
 */
async function tryStartGrace(
  { db, wallClock, graceMs }: RotationContext,
  { selector, currentHash }: Pick<StoredSession, 'selector' | 'currentHash'>,
  signal: AbortSignal,
): Promise<void> {
  if (signal.aborted) return;
  try {
    await startGrace(db, { selector, currentHash, until: wallClock() + graceMs });
  } catch {
    // The next request that presents the spent token starts it.
  }
}
