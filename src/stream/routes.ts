import { Failure } from '../errors.js';
import type { EventLog } from '../event-log/event-log.js';
import type { Exchange } from '../http/exchange.js';
import { toIpKey } from '../http/ip-key.js';
import type { Reply } from '../http/reply.js';
import { type Route, route, streamRoute } from '../http/router.js';
import { parseStrictBody } from '../http/strict-fields.js';
import { extendStream } from './extension.js';
import { type MintingSession, mintToken } from './minting.js';
import { type OpeningParts, openStream, rejectInStream } from './opening.js';
import type { LiveSession } from './session-checks.js';
import type { Streams } from './streams.js';
import {
  hashToken,
  invalidStreamToken,
  isStreamToken,
  type StreamTokens,
} from './tokens/stream-token.js';
import type { Choices } from './topics/choices.js';
import { assertRightsAllow, parseTopicList, topicBodyBytesMax } from './topics/topic-list.js';
import { topicsRoutes } from './topics/topics-routes.js';

/** Authentication and rate limits, supplied by `app.ts`. */
export interface StreamAccess {
  /**
   * Verifies an access token or the JWT of a trusted issuer, without a query, and returns a function that
   * reads its session. Both throw failures with status 401, and 503 while the keys of an issuer or the
   * database are unavailable. Without `token`, uses the token of the Authorization header.
   */
  verifyUser(exchange: Exchange, token?: string): Promise<() => Promise<MintingSession>>;
  /** Returns the credential of the Authorization header. Throws `bad_credentials` without one. */
  parseCredential(exchange: Exchange): string;
  /** Returns the session, or undefined if it has ended. */
  findLiveSession(sessionId: string): Promise<LiveSession | undefined>;
  /** Counts a new stream token for this user. Throws `too_many_requests`. */
  checkTokenRate(exchange: Exchange, userId: string): void;
  /** Reports that a stream token of this session has leaked and was revoked. */
  reportLeak(exchange: Exchange, session: LiveSession): void;
  /** Counts an attempt to open a stream from this address. Throws `too_many_requests`. */
  checkStreamRate(exchange: Exchange): void;
}

export interface StreamRouteParts extends OpeningParts {
  readonly access: StreamAccess;
  readonly eventLog: EventLog;
  readonly streams: Streams;
  readonly tokens: StreamTokens;
  readonly choices: Choices;
}

/** Creates the routes `/stream/token`, `/stream/extend`, `/stream/topics`, `/stream/live/:token` and `/stream/live`. */
export function streamRoutes(parts: StreamRouteParts): Route[] {
  const { access, eventLog, streams, tokens } = parts;
  return [
    route('POST', '/stream/token', async (exchange) => {
      const findSession = await access.verifyUser(exchange);
      const topics = await readTopics(exchange);
      const session = await findSession(); // After the body, which may take long.
      access.checkTokenRate(exchange, session.userId);
      assertRightsAllow(session.rights, topics, 'topics');
      return mintToken({ eventLog, tokens }, session, topics);
    }),

    route('POST', '/stream/extend', (exchange) => {
      const credential = access.parseCredential(exchange);
      access.checkStreamRate(exchange);
      const extensionParts = {
        tokens,
        verifyUser: access.verifyUser,
        findLiveSession: access.findLiveSession,
        checkRate: access.checkTokenRate,
        catchUp: () => eventLog.tryCatchUp(),
      };
      return extendStream(extensionParts, exchange, credential);
    }),

    ...topicsRoutes(parts),

    streamRoute('/stream/live/:token', (exchange, { token: tokenText }) =>
      rejectInStream(
        parts,
        exchange,
        async () => {
          access.checkStreamRate(exchange);
          return openByToken(parts, exchange, tokenText);
        },
        toTokenHash(tokenText),
      ),
    ),

    streamRoute('/stream/live', async (exchange) => {
      const credential = access.parseCredential(exchange);
      const open = async () => {
        access.checkStreamRate(exchange);
        if (isStreamToken(credential)) return openByToken(parts, exchange, credential);
        const findSession = await access.verifyUser(exchange);
        return streams.withSnapshot({ findSession }, (snapshot) =>
          openStream(streams, exchange, snapshot),
        );
      };
      return rejectInStream(parts, exchange, open, toTokenHash(credential));
    }),
  ];
}

/**
 * Returns the topics in the body of `POST /stream/token`. Ignores a body that cannot be read as JSON or has no
 * `topics`, because the route existed before topics and did not read the body, so its clients may send any.
 */
async function readTopics(exchange: Exchange): Promise<readonly string[]> {
  const [mediaType = ''] = (exchange.headers['content-type'] ?? '').split(';');
  if (mediaType.trim().toLowerCase() !== 'application/json') return [];
  const body = await exchange.body({ bytesMax: topicBodyBytesMax }).catch(ignoreUnreadable);
  if (typeof body !== 'object' || body === null || !Object.hasOwn(body, 'topics')) return [];
  return parseTopicList('topics', parseStrictBody(body, ['topics']).topics);
}

/** Returns undefined for a failure that says that a body is malformed, too large or of another type. */
function ignoreUnreadable(error: unknown): undefined {
  if (error instanceof Failure && [400, 413, 415].includes(error.status)) return undefined;
  throw error;
}

/** Returns the hash of a stream token; undefined for another credential. */
function toTokenHash(credential: string): string | undefined {
  return isStreamToken(credential) ? hashToken(credential) : undefined;
}

/** Opens a stream by its token, unless the token has leaked. A malformed token costs no query. */
async function openByToken(
  parts: StreamRouteParts,
  exchange: Exchange,
  tokenText: string,
): Promise<Reply> {
  const { access, streams } = parts;
  if (!isStreamToken(tokenText)) throw invalidStreamToken();
  return streams.withSnapshot({ tokenText }, async (snapshot) => {
    const { token, session } = snapshot;
    if (token && (await streams.revokeIfLeaked(token, toIpKey(exchange.ip)))) {
      access.reportLeak(exchange, session);
      throw invalidStreamToken();
    }
    return openStream(streams, exchange, snapshot);
  });
}
