import { Failure } from '../errors.js';
import { toClient } from '../http/client.js';
import type { Exchange } from '../http/exchange.js';
import { toIpKey } from '../http/ip-key.js';
import type { Reply } from '../http/reply.js';
import type { Logger } from '../logging/logger.js';
import type { WarningAggregator } from '../logging/warning-aggregator.js';
import type { StreamClient } from './event-stream.js';
import type { RefusalReason } from './registry.js';
import type { OpenSnapshot, Streams } from './streams.js';
import type { StreamTokens } from './tokens/stream-token.js';

export interface OpeningParts {
  readonly streams: Pick<Streams, 'refuse' | 'pickRefusalRetryMs'>;
  readonly tokens: Pick<StreamTokens, 'keepAlive'>;
  readonly log: Logger;
  readonly warnings: WarningAggregator;
}

const eventStreamHeaders = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache, no-store, no-transform',
  'x-accel-buffering': 'no',
};

/**
 * Prepares a stream and returns the reply that opens it. Throws `service_unavailable` or
 * `too_many_streams` when a limit is reached, `service_unavailable` during shutdown, and the errors of
 * `Streams.prepare`.
 */
export async function openStream(
  streams: Streams,
  exchange: Exchange,
  snapshot: OpenSnapshot,
): Promise<Reply> {
  const request = {
    snapshot,
    lastEventId: getLastEventId(exchange),
    ipKey: toIpKey(exchange.ip),
    client: toStreamClient(exchange),
    hasHeartbeatEvents: exchange.query.get('heartbeat') === 'event',
  };
  const refusal = streams.checkLimits(request);
  if (refusal !== undefined) throw toFailure(refusal, streams.pickRefusalRetryMs());
  const prepared = await streams.prepare(request);
  return { status: 200, headers: eventStreamHeaders, ...prepared };
}

/**
 * Returns the reply of `open`. If `open` fails temporarily (stream limit, rate limit, shutdown,
 * unavailable database, defect) and `Accept` is exactly `text/event-stream`, returns status 200 and a
 * `stream.close` event that asks the client to reconnect later, because the EventSource of a browser never
 * reconnects after an error status. Throws all other failures. Throws temporary failures, too, for clients with
 * another `Accept`.
 *
 * After a temporary failure, keeps the token of `tokenHash` alive for as long as its client is told to wait
 * (see `StreamTokens.keepAlive`).
 */
export async function rejectInStream(
  { streams, tokens, log, warnings }: OpeningParts,
  exchange: Exchange,
  open: () => Promise<Reply>,
  tokenHash?: string,
): Promise<Reply> {
  try {
    return await open();
  } catch (cause) {
    const status = cause instanceof Failure ? cause.status : 500;
    if (status !== 429 && status < 500) throw cause;
    const isEventSource = exchange.headers['accept']?.trim() === 'text/event-stream';
    const retryMs = streams.pickRefusalRetryMs();
    const { retryAfterMs = retryMs } = cause instanceof Failure ? cause : {};
    if (tokenHash !== undefined)
      tokens.keepAlive(tokenHash, isEventSource ? retryMs : retryAfterMs);
    if (!isEventSource) throw cause;
    const fields = { requestId: exchange.id, cause };
    if (status === 500) log.error(fields, 'stream failed to open');
    else if (status > 500) warnRefused(warnings, cause as Failure, fields);
    const reason = cause instanceof Failure ? cause.name : 'internal_server';
    return {
      status: 200,
      headers: eventStreamHeaders,
      open: (sink) => streams.refuse(sink, reason, retryMs),
    };
  }
}

function warnRefused(
  warnings: WarningAggregator,
  { message: reason }: Failure,
  fields: object,
): void {
  const phrase = 'stream refused';
  warnings.warn({ kind: phrase, subject: reason, fields: { ...fields, reason }, phrase });
}

function toFailure(refusal: RefusalReason, retryAfterMs: number): Failure {
  if (refusal === 'all' || refusal === 'draining') {
    const why = refusal === 'all' ? 'the stream limit is reached' : 'the server is shutting down';
    return new Failure('service_unavailable', `Cannot open stream: ${why}`, { retryAfterMs });
  }
  const whose = refusal === 'user' ? 'this user' : 'this address';
  return new Failure('too_many_streams', `Cannot open stream: ${whose} has too many open`, {
    retryAfterMs,
    info: { limit: refusal },
  });
}

/** Returns the client of an exchange. Shortens an address with a very long IPv6 zone, which a proxy may pass on. */
function toStreamClient(exchange: Exchange): StreamClient {
  return { address: exchange.ip.slice(0, 64), userAgent: toClient(exchange).userAgent };
}

/** Returns the id from which a client resumes. Prefers the header, where a reconnecting client sends its newest id. */
function getLastEventId({ headers, query }: Exchange): string | undefined {
  const given = headers['last-event-id'] ?? query.get('lastEventId') ?? '';
  return given === '' ? undefined : given;
}
