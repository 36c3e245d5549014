import type { EventLog } from '../event-log/event-log.js';
import type { Exchange } from '../http/exchange.js';
import { toIpKey } from '../http/ip-key.js';
import { json, type Reply } from '../http/reply.js';
import { type Route, route, streamRoute } from '../http/router.js';
import { type OpeningParts, openStream, rejectInStream } from './opening.js';
import type { LiveSession } from './session-checks.js';
import {
  getPublicId,
  hashToken,
  invalidStreamToken,
  isStreamToken,
  type StreamTokens,
} from './stream-token.js';

/** The user of an access token. */
export interface StreamUser {
  readonly userId: string;
  readonly sessionId: string;
  /** When the session expires unless it is refreshed, epoch ms. */
  readonly sessionExpiresAt: number;
}

/** Authentication and rate limits, supplied by `app.ts`. */
export interface StreamAccess {
  /** Returns the user and session of an access token. Throws failures with status 401. */
  user(exchange: Exchange): Promise<StreamUser>;
  /** Returns the credential of the Authorization header. Throws `bad_credentials` without one. */
  credential(exchange: Exchange): string;
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
  readonly tokens: StreamTokens;
}

/** Creates the routes `/stream/token`, `/stream/live/:token` and `/stream/live`. */
export function streamRoutes(parts: StreamRouteParts): Route[] {
  const { access, eventLog, streams, tokens } = parts;
  return [
    route('POST', '/stream/token', async (exchange) => {
      const { userId, sessionId, sessionExpiresAt: endsAt } = await access.user(exchange);
      access.checkTokenRate(exchange, userId);
      const { seq } = await eventLog.readState();
      const id = eventLog.format(seq);
      const streamToken = await tokens.mint({ userId, sessionId, beginning: id });
      const stream = getPublicId(streamToken);
      return json(
        200,
        { streamToken, expiresIn: tokens.lifeMs, stream, endsAt, id },
        { 'cache-control': 'no-store', pragma: 'no-cache' },
      );
    }),

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
      const credential = access.credential(exchange);
      const open = async () => {
        access.checkStreamRate(exchange);
        if (isStreamToken(credential)) return openByToken(parts, exchange, credential);
        const { sessionId } = await access.user(exchange);
        return streams.withSnapshot({ sessionId }, (snapshot) =>
          openStream(streams, exchange, snapshot),
        );
      };
      return rejectInStream(parts, exchange, open, toTokenHash(credential));
    }),
  ];
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
