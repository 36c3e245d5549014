import { Failure } from '../errors.js';
import { hashBody, isIdempotencyKey } from '../events/idempotency-key.js';
import { type PublishLimits, parsePublishRequest } from '../events/publish-request.js';
import { BodyBudget } from '../http/body/body-budget.js';
import type { Exchange } from '../http/exchange.js';
import { json, type Reply } from '../http/reply.js';
import { type Route, serverRoute } from '../http/router.js';
import { refuseQuery } from '../http/strict-fields.js';
import type { EventLog } from './event-log.js';
import type { Publisher } from './log-store.js';
import { assertNoOwnKey, publishLines } from './publish-lines.js';

export interface PublishBodyLimits {
  readonly bodyBytesMax: number;
  /** Maximum memory for all bodies that are being published at the same time. */
  readonly bodiesBytesMax: number;
  /**
   * Maximum size of an NDJSON body: the size that the event log keeps. The end of a larger body would
   * cause its start to be trimmed.
   */
  readonly linesBytesMax: number;
  readonly eventBytesMax: number;
  /** Maximum pause between two lines of an NDJSON body. */
  readonly linesIdleMs: number;
}

export interface PublishRouteParts {
  readonly eventLog: Pick<EventLog, 'publish'>;
  /** Authenticates an API key with the scope `publish`. Throws failures with status 401 or 403. */
  readonly authenticate: (exchange: Exchange) => Promise<Publisher>;
  readonly limits: PublishBodyLimits;
  readonly wallClock: () => number;
  /** Aborts when the server stops. Ends NDJSON bodies, which could otherwise continue forever. */
  readonly stopSignal: AbortSignal;
}

interface PublishParts extends Omit<PublishRouteParts, 'authenticate'> {
  readonly limits: PublishBodyLimits & PublishLimits;
  readonly budget: BodyBudget;
}

/** Maximum size of an event without its data: up to 1000 quoted recipients of up to 255 characters. */
const envelopeBytesMax = 320 * 1024;
/** JSON can encode one byte of data as `\u00..`. */
const jsonBytesPerDataByteMax = 6;

/**
 * Creates the route `POST /v1/events` and its alias `POST /events`, by which a backend with an API key publishes
 * one event, an array of events, or NDJSON.
 */
export function publishRoutes({ authenticate, ...parts }: PublishRouteParts): Route[] {
  const budget = new BodyBudget(parts.limits.bodiesBytesMax);
  const handle = async (exchange: Exchange, { isQueryRefused }: { isQueryRefused: boolean }) => {
    const publisher = await authenticate(exchange);
    if (isQueryRefused) refuseQuery(exchange.query);
    return handlePublish(exchange, publisher, { ...parts, budget });
  };
  return [
    serverRoute('POST', '/v1/events', (exchange) => handle(exchange, { isQueryRefused: true })),
    // Existing clients may send parameters.
    serverRoute('POST', '/events', (exchange) => handle(exchange, { isQueryRefused: false })),
  ];
}

async function handlePublish(
  exchange: Exchange,
  publisher: Publisher,
  parts: PublishParts,
): Promise<Reply> {
  const { eventLog, budget, wallClock } = parts;
  const { userPrefix, topicPatterns } = publisher;
  const limits = { ...parts.limits, userPrefix, topicPatterns };
  const key = parseIdempotencyKey(exchange);
  if (isNdjson(exchange)) return handlePublishLines(exchange, publisher, { ...parts, limits }, key);
  const body = await exchange.jsonBody({ bytesMax: limits.bodyBytesMax, budget });
  const events = parsePublishRequest(body, limits, wallClock());
  if (key !== undefined) for (const event of events) assertNoOwnKey(event);
  const idempotency = key === undefined ? undefined : { key, bodyHash: hashBody(body?.text ?? '') };
  const ids = await eventLog.publish(events, idempotency, publisher);
  return json(201, Array.isArray(body?.value) ? { ids } : { id: ids[0] });
}

async function handlePublishLines(
  exchange: Exchange,
  publisher: Publisher,
  { eventLog, limits, budget, wallClock, stopSignal: signal }: PublishParts,
  key: string | undefined,
): Promise<Reply> {
  const lineBytesMax = limits.eventBytesMax * jsonBytesPerDataByteMax + envelopeBytesMax;
  const { linesBytesMax: bytesMax, linesIdleMs: deadlineMs } = limits;
  const lines = exchange.lines({ bytesMax, lineBytesMax, deadlineMs, signal });
  const published = await publishLines(lines, {
    ...{ limits, wallClock, budget, key, signal },
    publish: (events, idempotency) => eventLog.publish(events, idempotency, publisher),
  });
  return json(201, published);
}

function isNdjson({ headers }: Exchange): boolean {
  return headers['content-type']?.toLowerCase().includes('ndjson') === true;
}

function parseIdempotencyKey({ headers }: Exchange): string | undefined {
  const key = headers['idempotency-key'];
  if (key === undefined || isIdempotencyKey(key)) return key;
  const message = 'Cannot publish: Idempotency-Key must have 1 to 255 printable ASCII characters';
  throw new Failure('invalid_request', message, { info: { header: 'idempotency-key' } });
}
