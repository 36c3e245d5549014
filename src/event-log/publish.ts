import { createHash } from 'node:crypto';
import { Failure } from '../errors.js';
import { parsePublishRequest } from '../events/publish-request.js';
import { type BodyBudget, noRoom } from '../http/body/body-budget.js';
import type { Exchange } from '../http/exchange.js';
import { json, type Reply } from '../http/reply.js';
import type { Broker } from './broker.js';
import { groupMax, publishLines } from './publish-lines.js';

export interface PublishParts {
  readonly broker: Broker;
  readonly publish: {
    readonly bodyBytesMax: number;
    /** What all bodies together may take of memory. */
    readonly bodies: BodyBudget;
    /** Of a body of lines: more than the log keeps would push itself out again. */
    readonly linesBytesMax: number;
    readonly eventBytesMax: number;
  };
  readonly clock: () => number;
}

/** What stands around the data of an event: up to 1000 addresses, in quotes. */
const envelopeBytesMax = 128 * 1024;
/** JSON may write every byte as `\u00..`. */
const escapedBytes = 6;

/** Publishes what is in a body for the backend with an API key: one event, an array, or lines. */
export async function publishFrom(
  exchange: Exchange,
  keyId: string,
  { broker, publish, clock }: PublishParts,
): Promise<Reply> {
  const key = idempotencyKeyOf(exchange);
  // Keys are the publisher's own: another API key may use the same one for something else.
  const keyHash = (part: string) => sha256(`${keyId}\n${key}${part}`);
  if (isLines(exchange)) {
    const groupKey = key === undefined ? undefined : (group: number) => keyHash(`\n${group}`);
    return publishLinesFrom(exchange, { broker, publish, clock }, groupKey);
  }
  const { bodyBytesMax: bytesMax, bodies: budget } = publish;
  const body = await exchange.body({ bytesMax, budget });
  const events = parsePublishRequest(body, publish, clock());
  const idempotency =
    key === undefined
      ? undefined
      : { keyHash: keyHash(''), bodyHash: sha256(JSON.stringify(body)) };
  const ids = await broker.publish(events, idempotency);
  return json(201, Array.isArray(body) ? { ids } : { id: ids[0] });
}

async function publishLinesFrom(
  exchange: Exchange,
  { broker, publish, clock }: PublishParts,
  keyHash: ((group: number) => string) | undefined,
): Promise<Reply> {
  const lineBytesMax = publish.eventBytesMax * escapedBytes + envelopeBytesMax;
  const heldBytes = groupMax.bytes + lineBytesMax; // However long the whole is.
  if (!publish.bodies.take(heldBytes)) throw noRoom();
  try {
    const lines = exchange.lines({ bytesMax: publish.linesBytesMax, lineBytesMax });
    const published = await publishLines(lines, {
      limits: publish,
      clock,
      publish: (events, idempotency) => broker.publish(events, idempotency),
      keyHash,
    });
    return json(201, published);
  } finally {
    publish.bodies.giveBack(heldBytes);
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
