import { createHash } from 'node:crypto';
import { Failure } from '../errors.js';
import { parsePublishRequest } from '../events/publish-request.js';
import { BodyBudget, noRoom } from '../http/body/body-budget.js';
import type { Exchange } from '../http/exchange.js';
import { json, type Reply } from '../http/reply.js';
import { type Route, route } from '../http/router.js';
import type { EventLog } from './event-log.js';
import { groupMax, publishLines } from './publish-lines.js';

export interface PublishBodyLimits {
  readonly bodyBytesMax: number;
  /** Memory for all bodies that are being published at a time. */
  readonly bodiesBytesMax: number;
  /** Size of a body of lines: with more than the log keeps, its last events would trim its first. */
  readonly linesBytesMax: number;
  readonly eventBytesMax: number;
}

export interface PublishRouteParts {
  readonly eventLog: Pick<EventLog, 'publish'>;
  /** Returns the backend behind an API key with the scope `publish`. Throws 401s and 403. */
  readonly publisher: (exchange: Exchange) => Promise<{ readonly keyId: string }>;
  readonly limits: PublishBodyLimits;
  readonly clock: () => number;
}

interface PublishParts extends Omit<PublishRouteParts, 'publisher'> {
  readonly bodies: BodyBudget;
}

/** What stands around the data of an event: up to 1000 addresses, in quotes. */
const envelopeBytesMax = 128 * 1024;
/** JSON may write every byte as `\u00..`. */
const escapedBytes = 6;

/** `POST /events`: one event, an array, or lines, from a backend with an API key. */
export function publishRoutes({ publisher, ...parts }: PublishRouteParts): Route[] {
  const bodies = new BodyBudget(parts.limits.bodiesBytesMax);
  return [
    route('POST', '/events', async (exchange) => {
      const { keyId } = await publisher(exchange);
      return publishFrom(exchange, keyId, { ...parts, bodies });
    }),
  ];
}

async function publishFrom(exchange: Exchange, keyId: string, parts: PublishParts): Promise<Reply> {
  const { eventLog, limits, bodies, clock } = parts;
  const key = idempotencyKeyOf(exchange);
  // Keys are the publisher's own: another API key may use the same one for something else.
  const keyHash = (part: string) => sha256(`${keyId}\n${key}${part}`);
  if (isLines(exchange)) {
    const groupKey = key === undefined ? undefined : (group: number) => keyHash(`\n${group}`);
    return publishLinesFrom(exchange, parts, groupKey);
  }
  const body = await exchange.body({ bytesMax: limits.bodyBytesMax, budget: bodies });
  const events = parsePublishRequest(body, limits, clock());
  const idempotency =
    key === undefined
      ? undefined
      : { keyHash: keyHash(''), bodyHash: sha256(JSON.stringify(body)) };
  const ids = await eventLog.publish(events, idempotency);
  return json(201, Array.isArray(body) ? { ids } : { id: ids[0] });
}

async function publishLinesFrom(
  exchange: Exchange,
  { eventLog, limits, bodies, clock }: PublishParts,
  keyHash: ((group: number) => string) | undefined,
): Promise<Reply> {
  const lineBytesMax = limits.eventBytesMax * escapedBytes + envelopeBytesMax;
  const heldBytes = groupMax.bytes + lineBytesMax; // However long the whole is.
  if (!bodies.take(heldBytes)) throw noRoom();
  try {
    const lines = exchange.lines({ bytesMax: limits.linesBytesMax, lineBytesMax });
    const published = await publishLines(lines, {
      limits,
      clock,
      publish: (events, idempotency) => eventLog.publish(events, idempotency),
      keyHash,
    });
    return json(201, published);
  } finally {
    bodies.giveBack(heldBytes);
  }
}

function isLines({ headers }: Exchange): boolean {
  return headers['content-type']?.toLowerCase().includes('ndjson') === true;
}

function idempotencyKeyOf({ headers }: Exchange): string | undefined {
  const key = headers['idempotency-key'];
  if (key === undefined || /^[\x20-\x7e]{1,255}$/.test(key)) return key;
  const message = 'Cannot publish: Idempotency-Key has 1 to 255 characters';
  throw new Failure('invalid_request', message, { info: { header: 'idempotency-key' } });
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
