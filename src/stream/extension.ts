import { Failure } from '../errors.js';
import { parseStoredRights } from '../events/topic-rights.js';
import type { Exchange } from '../http/exchange.js';
import { json, type Reply } from '../http/reply.js';
import { invalidField, parseStrictBody, refuseQuery } from '../http/strict-fields.js';
import type { MintingSession } from './minting.js';
import type { LiveSession } from './session-checks.js';
import type { StreamToken, StreamTokens } from './tokens/stream-token.js';
import { type TokenGrant, toStoredRights } from './topics/token-rights.js';

export interface ExtensionParts {
  readonly tokens: Pick<StreamTokens, 'find' | 'extend' | 'confirmRights'>;
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

/** What a fresh stream token or access token grants. */
interface Grant extends TokenGrant {
  readonly userId: string;
}

/**
 * Handles `POST /stream/extend`. The end and the rights of a fresh stream token, or of a fresh access token, replace those
 * of the stream token in the Authorization header, so the open stream of that token continues. Throws
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
  const isSameKind = (grant.endsAt === undefined) === (old.endsAt === undefined);
  if (grant.userId !== old.userId || !isSameKind) {
    throw new Failure(
      'user_not_allowed',
      'Cannot extend stream: the tokens are of different users',
      {
        info: { field },
      },
    );
  }
  const { endsAt = (await requireSession(parts, old)).expiresAt } = grant;
  if (isChange(grant, old)) {
    parts.checkRate(exchange, old.userId);
    await parts.tokens.extend(old, grant);
    await parts.catchUp();
  }
  return toReply(endsAt);
}

/**
 * Whether a grant changes a token. The number of the rights matters only if there are any, and that of the minting only
 * to users without an account.
 */
function isChange(grant: Grant, old: StreamToken): boolean {
  const hasOtherRights = toStoredRights(grant.rights) !== old.rights;
  const { mintedSeq, rights, rightsSeq = mintedSeq, endsAt } = grant;
  const areRightsNewer = rightsSeq !== old.rightsSeq && rights.size > 0;
  if (endsAt === undefined) return hasOtherRights || areRightsNewer;
  const hasOtherNumber = mintedSeq !== old.mintedSeq;
  return hasOtherRights || areRightsNewer || hasOtherNumber || endsAt !== old.endsAt;
}

async function toGrant(parts: ExtensionParts, token: StreamToken): Promise<Grant> {
  const { hash, userId, mintedSeq, endsAt, rights: storedRights, rightsSeq } = token;
  const grant = { userId, endsAt, mintedSeq, rights: parseStoredRights(storedRights), rightsSeq };
  if (endsAt !== undefined) return grant;
  await requireSession(parts, token);
  const { tokens } = parts;
  return { ...grant, confirmRights: (tx) => tokens.confirmRights(tx, hash, storedRights) };
}

async function readGrant(
  { verifyUser }: ExtensionParts,
  exchange: Exchange,
  accessToken: string,
): Promise<Grant> {
  const findSession = await verifyUser(exchange, accessToken);
  const session = await findSession();
  const { userId, isForeign, expiresAt, headSeq: mintedSeq, rights, confirmRights } = session;
  const endsAt = isForeign ? expiresAt : undefined;
  return { userId, endsAt, mintedSeq, rights, confirmRights };
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
