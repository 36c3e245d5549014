import { Failure } from '../errors.js';
import { type PublishParts, publishFrom } from '../event-log/publish.js';
import type { Exchange } from '../http/exchange.js';
import { ipKeyOf } from '../http/ip-key.js';
import { json, type Reply } from '../http/reply.js';
import { type Route, route, streamRoute } from '../http/router.js';
import type { Log } from '../logging/log.js';
import type { Repeats } from '../logging/warning-aggregator.js';
import type { Refusal } from './registry.js';
import { invalid, type StreamTokens } from './stream-token.js';
import type { LiveSession, StreamRequest, Streams } from './streams.js';

/** What this feature needs to know of who is asking; the composition root hands it in. */
export interface StreamAccess {
  /** The user and session of an access token. Throws 401s. */
  user(exchange: Exchange): Promise<{ readonly userId: string; readonly sessionId: string }>;
  /** The backend behind an API key with the scope `publish`. Throws 401s and 403. */
  publisher(exchange: Exchange): Promise<{ readonly keyId: string }>;
  liveSession(sessionId: string): Promise<LiveSession | undefined>;
  /** Counts a new stream token of the user. Throws `too_many_requests`. */
  admitToken(exchange: Exchange, userId: string): void;
  /** A stream token of this session was in too many hands, and is void. */
  reportLeak(exchange: Exchange, session: LiveSession): void;
  /** Counts an attempt to open a stream from this address. Throws `too_many_requests`. */
  admitStream(exchange: Exchange): void;
}

export interface StreamRouteParts extends PublishParts {
  readonly access: StreamAccess;
  readonly streams: Streams;
  readonly tokens: StreamTokens;
  readonly log: Log;
  readonly repeats: Repeats;
}

const eventStreamHeaders = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache, no-store, no-transform',
  'x-accel-buffering': 'no',
};

export function streamRoutes(parts: StreamRouteParts): Route[] {
  const { access, streams, tokens } = parts;
  return [
    route('POST', '/stream/token', async (exchange) => {
      const { userId, sessionId } = await access.user(exchange);
      access.admitToken(exchange, userId);
      const streamToken = await tokens.mint({ userId, sessionId });
      return json(
        200,
        { streamToken, expiresIn: tokens.lifeMs },
        { 'cache-control': 'no-store', pragma: 'no-cache' },
      );
    }),

    streamRoute('/stream/live/:token', (exchange, { token: text }) =>
      refusingInBand(parts, exchange, async () => {
        const token = await tokens.find(text);
        const session = await streams.sessionOf(token.sessionId);
        if (await streams.endIfLeaked(token, ipKeyOf(exchange.ip))) {
          access.reportLeak(exchange, session);
          throw invalid();
        }
        return openStream(streams, exchange, { session, token });
      }),
    ),

    streamRoute('/stream/live', (exchange) =>
      refusingInBand(parts, exchange, async () => {
        const { sessionId } = await access.user(exchange);
        const session = await streams.sessionOf(sessionId);
        return openStream(streams, exchange, { session, token: undefined });
      }),
    ),

    route('POST', '/events', async (exchange) => {
      const { keyId } = await access.publisher(exchange);
      return publishFrom(exchange, keyId, parts);
    }),
  ];
}

async function openStream(
  streams: Streams,
  exchange: Exchange,
  { session, token }: Pick<StreamRequest, 'session' | 'token'>,
): Promise<Reply> {
  const request = {
    session,
    token,
    lastEventId: lastEventIdOf(exchange),
    ip: ipKeyOf(exchange.ip),
    requestId: exchange.id,
  };
  const refusal = streams.refusalFor(request);
  if (refusal !== undefined) throw failureOf(refusal, streams.refusalRetryMs());
  const ready = await streams.prepare(request);
  return { status: 200, headers: eventStreamHeaders, open: (sink) => ready.open(sink) };
}

/**
 * What may pass (too many streams, or too many opened in a time, a stop, a database that is away, a
 * defect) is said in the stream to those who would never come back after a status code, which is what
 * a browser's EventSource is, and by a status code to everyone else.
 */
async function refusingInBand(
  { access, streams, log, repeats }: StreamRouteParts,
  exchange: Exchange,
  open: () => Promise<Reply>,
): Promise<Reply> {
  try {
    access.admitStream(exchange);
    return await open();
  } catch (cause) {
    if (exchange.headers['accept']?.trim() !== 'text/event-stream') throw cause;
    const status = cause instanceof Failure ? cause.status : 500;
    if (status !== 429 && status < 500) throw cause;
    const fields = { requestId: exchange.id, cause };
    if (status === 500) log.error(fields, 'stream failed to open');
    else if (status > 500) warnOfRefusal(repeats, cause as Failure, fields);
    const reason = cause instanceof Failure ? cause.name : 'internal_server';
    return {
      status: 200,
      headers: eventStreamHeaders,
      open: (sink) => streams.refuse(sink, reason),
    };
  }
}

function warnOfRefusal(repeats: Repeats, { message: reason }: Failure, fields: object): void {
  const phrase = 'stream refused';
  repeats.warn({ kind: phrase, of: reason, fields: { ...fields, reason }, phrase });
}

function failureOf(refusal: Refusal, retryAfterMs: number): Failure {
  if (refusal === 'all' || refusal === 'draining') {
    const why = refusal === 'all' ? 'all streams are taken' : 'the server is about to stop';
    return new Failure('service_unavailable', `Cannot open stream: ${why}`, { retryAfterMs });
  }
  const whose = refusal === 'user' ? 'this user' : 'this address';
  return new Failure('too_many_streams', `Cannot open stream: ${whose} has too many open`, {
    retryAfterMs,
    info: { limit: refusal },
  });
}

/** The header wins: a client that comes back by itself sends the newer one there. */
function lastEventIdOf({ headers, query }: Exchange): string | undefined {
  const given = headers['last-event-id'] ?? query.get('lastEventId') ?? '';
  return given === '' ? undefined : given;
}
