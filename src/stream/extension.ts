import { Failure } from '../errors.js';
import type { Exchange } from '../http/exchange.js';
import { json, type Reply } from '../http/reply.js';
import { invalidField, parseStrictBody, refuseQuery } from '../http/strict-fields.js';
import type { MintingSession } from './minting.js';
import type { LiveSession } from './session-checks.js';
import type { StreamToken, StreamTokens } from './tokens/stream-token.js';

export interface ExtensionParts {
  readonly tokens: Pick<StreamTokens, 'find' | 'extend'>;
  /** Verifies a fresh access token, see `StreamAccess`. */
  readonly verifyUser: (
    exchange: Exchange,
    token: string,
  ) => Promise<() => Promise<MintingSession>>;
  /** Returns a session of a local account, or undefined if it has ended. */
  readonly findLiveSession: (sessionId: string) => Promise<LiveSession | undefined>;
  /** Counts an extension for this user. Throws `too_many_requests`. */
  readonly checkRate: (exchange: Exchange, userId: string) => void;
  /** Applies the entries of the event log up to now. */
  readonly catchUp: () => Promise<void>;
}

/** The user and the end of streams that a fresh stream token or access token grants. */
interface Grant {
  readonly userId: string;
  readonly isForeign: boolean;
  readonly endsAt: number;
  readonly mintedSeq: number;
}

/**
 * Handles `POST /stream/extend`. The end of a fresh stream token or of a fresh JWT replaces the end of the
 * stream token in the Authorization header, so the open stream of that token continues. Throws
 * `user_not_allowed` unless both tokens belong to the same user. A stream of a local session still ends with
 * its session, which only a refresh extends.
 */
export async function extendStream(
  parts: ExtensionParts,
  exchange: Exchange,
  oldText: string,
): Promise<Reply> {
  refuseQuery(exchange.query);
  const { streamToken, accessToken } = parseStrictBody(await exchange.body(), [
    'streamToken',
    'accessToken',
  ]);
  const freshText = streamToken ?? accessToken;
  if (freshText === undefined) {
    throw new Failure(
      'missing_required_parameter',
      'Cannot read body: needs streamToken or accessToken',
      { info: { body: ['streamToken'] } },
    );
  }
  if (streamToken !== undefined && accessToken !== undefined)
    throw invalidField('accessToken', 'cannot be combined with streamToken');
  const field = streamToken === undefined ? 'accessToken' : 'streamToken';
  if (typeof freshText !== 'string') throw invalidField(field, 'must be a text');
  // The fresh token is read first. The read of the old token then finds a disconnect in between.
  const grant =
    field === 'streamToken'
      ? await toGrant(parts, await parts.tokens.find(freshText, { isOpen: freshText === oldText }))
      : await readGrant(parts, exchange, freshText);
  const old = await parts.tokens.find(oldText, { isOpen: true });
  if (grant.userId !== old.userId || grant.isForeign !== (old.endsAt !== undefined)) {
    throw new Failure(
      'user_not_allowed',
      'Cannot extend stream: the tokens are of different users',
      {
        info: { field },
      },
    );
  }
  if (!grant.isForeign) return toReply((await requireSession(parts, old)).expiresAt);
  if (grant.endsAt !== old.endsAt || grant.mintedSeq !== old.mintedSeq) {
    parts.checkRate(exchange, old.userId);
    await parts.tokens.extend(old.hash, grant);
    await parts.catchUp();
  }
  return toReply(grant.endsAt);
}

async function toGrant(parts: ExtensionParts, token: StreamToken): Promise<Grant> {
  const { userId, mintedSeq, endsAt } = token;
  if (endsAt !== undefined) return { userId, isForeign: true, endsAt, mintedSeq };
  const session = await requireSession(parts, token);
  return { userId, isForeign: false, endsAt: session.expiresAt, mintedSeq };
}

async function readGrant(
  { verifyUser }: ExtensionParts,
  exchange: Exchange,
  accessToken: string,
): Promise<Grant> {
  const findSession = await verifyUser(exchange, accessToken);
  const { userId, isForeign, expiresAt: endsAt, headSeq: mintedSeq } = await findSession();
  return { userId, isForeign, endsAt, mintedSeq };
}

async function requireSession(
  { findLiveSession }: ExtensionParts,
  { sessionId }: StreamToken,
): Promise<LiveSession> {
  const session = await findLiveSession(sessionId);
  if (session !== undefined) return session;
  throw new Failure('invalid_token', 'Cannot extend stream: its session has ended');
}

function toReply(endsAt: number): Reply {
  return json(200, { endsAt }, { 'cache-control': 'no-store' });
}
