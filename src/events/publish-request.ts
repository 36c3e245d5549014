import { Failure } from '../errors.js';
import { type Audience, getOnlyTopic } from './audience.js';
import { createEventFailure } from './event-failure.js';
import { isEncodable, isPublishableName } from './frame.js';
import { hashBody, type IdempotencyKey, isIdempotencyKey } from './idempotency-key.js';
import { sliceElements, sliceMember } from './raw-json.js';
import { assertKeyAllows, type RecipientLimits } from './recipient-limits.js';
import { parseRecipients } from './recipients.js';

/** A JSON value that a publisher sent, and the text from which it was parsed. */
export interface PublishedJson {
  readonly value: unknown;
  readonly text: string;
}

/** A validated event of a publisher. `data` is the text that is sent to clients. */
export interface NewEvent {
  readonly audiences: readonly Audience[];
  /** The topic, if the event is addressed to exactly one topic and to nothing else. Clients receive it. */
  readonly topic?: string | undefined;
  readonly type: string | undefined;
  readonly data: string;
  /**
   * Whether the event is kept out of the event log. It then has no id, and only live streams
   * receive it.
   */
  readonly volatile: boolean;
  /** Epoch ms. From then on the event is not delivered. */
  readonly expiresAt: number | undefined;
  /** The key in the event itself, as opposed to the key of the request. */
  readonly idempotency?: EventKey | undefined;
}

/** The idempotency key of one event. */
export interface EventKey extends IdempotencyKey {
  /** The index of the event in an array or among the lines of NDJSON; undefined for a single event. */
  readonly index: number | undefined;
}

export interface PublishLimits extends RecipientLimits {
  /** Maximum size of `data` as UTF-8. */
  readonly eventBytesMax: number;
}

export const eventsPerRequestMax = 1000;
/** Maximum total over all events of a request. Bounds the transaction that stores the request. */
export const recipientsPerRequestMax = 10_000;
const expiresInMaxMs = 366 * 24 * 60 * 60 * 1000;

/**
 * Parses the body of `POST /v1/events`: one event
 * `{to, type?, data, volatile?, expiresIn?, idempotencyKey?}` or an array of 1 to 1000 events. `now` is
 * epoch ms. The first invalid event fails the whole request with `missing_required_parameter`,
 * `invalid_request`, `payload_too_large`, `user_not_allowed` or `topic_not_allowed`. `info` contains the field,
 * and for an array the index of the event.
 */
export function parsePublishRequest(
  body: PublishedJson | undefined,
  limits: PublishLimits,
  now: number,
): readonly NewEvent[] {
  const { value = undefined, text = '' } = body ?? {};
  if (!Array.isArray(value)) return [parseEvent({ value, text }, limits, now, undefined)];
  return parseArray(value, text, limits, now);
}

function parseArray(
  body: readonly unknown[],
  text: string,
  limits: PublishLimits,
  now: number,
): readonly NewEvent[] {
  if (body.length === 0 || body.length > eventsPerRequestMax) {
    throw new Failure(
      'invalid_request',
      `Cannot publish: an array holds 1 to ${eventsPerRequestMax} events, not ${body.length}`,
      { info: { max: eventsPerRequestMax } },
    );
  }
  const texts = sliceElements(text);
  const events = body.map((value, index) =>
    parseEvent({ value, text: texts[index] ?? '' }, limits, now, index),
  );
  const recipientCount = events.reduce((sum, event) => sum + event.audiences.length, 0);
  if (recipientCount > recipientsPerRequestMax) {
    const limit = `a request has at most ${recipientsPerRequestMax} recipients over all its events`;
    throw new Failure('invalid_request', `Cannot publish: ${limit}`, {
      info: { max: recipientsPerRequestMax },
    });
  }
  return events;
}

const knownFields = ['to', 'type', 'data', 'volatile', 'expiresIn', 'idempotencyKey'];

/**
 * Parses one event. Throws the errors of `parsePublishRequest`, which contain `index` unless it is undefined.
 */
export function parseEvent(
  { value: body, text }: PublishedJson,
  limits: PublishLimits,
  now: number,
  index: number | undefined,
): NewEvent {
  const failWith = (
    field: string,
    message: string,
    name: 'invalid_request' | 'payload_too_large',
  ) => createEventFailure(name, `${field} ${message}`, { field, index });
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw failWith('event', 'must be an object with "to" and "data"', 'invalid_request');
  }
  const fields = body as Readonly<Record<string, unknown>>;
  const unknownField = Object.keys(fields).find((field) => !knownFields.includes(field));
  if (unknownField !== undefined) {
    // Only a name that could be a mistyped field is echoed.
    const name = /^\w{1,32}$/.test(unknownField) ? unknownField : 'event';
    throw failWith(name, `is not one of the fields ${knownFields.join(', ')}`, 'invalid_request');
  }
  const missing = ['to', 'data'].filter((field) => fields[field] === undefined);
  if (missing.length > 0) {
    const message = `needs ${missing.join(' and ')}`;
    throw createEventFailure('missing_required_parameter', message, { body: missing, index });
  }
  const { type, volatile = false, expiresIn, idempotencyKey: key } = fields;
  if (type !== undefined && !(typeof type === 'string' && isPublishableName(type))) {
    const rule = 'must be 1 to 64 of A-Z a-z 0-9 _ . : - and not error, open, count or stream.*';
    throw failWith('type', rule, 'invalid_request');
  }
  if (typeof volatile !== 'boolean')
    throw failWith('volatile', 'must be true or false', 'invalid_request');
  if (expiresIn !== undefined && !isLifetime(expiresIn)) {
    throw failWith(
      'expiresIn',
      'must be whole milliseconds, from 1 ms to 366 days',
      'invalid_request',
    );
  }
  if (key !== undefined && !isIdempotencyKey(key)) {
    throw failWith(
      'idempotencyKey',
      'must be 1 to 255 printable ASCII characters',
      'invalid_request',
    );
  }
  if (key !== undefined && volatile) {
    throw failWith('idempotencyKey', 'has no effect on a volatile event', 'invalid_request');
  }
  const data = toDataText(fields['data'], text);
  if (!isEncodable(data)) {
    throw failWith('data', 'must not hold NUL or a lone surrogate', 'invalid_request');
  }
  if (Buffer.byteLength(data) > limits.eventBytesMax) {
    throw failWith(
      'data',
      `is over the limit of ${limits.eventBytesMax} bytes`,
      'payload_too_large',
    );
  }
  const audiences = parseRecipients(fields['to']);
  if ('field' in audiences) throw failWith(audiences.field, audiences.reason, 'invalid_request');
  assertKeyAllows(audiences, limits, index);
  const expiresAt = expiresIn === undefined ? undefined : now + expiresIn;
  const idempotency = key === undefined ? undefined : { key, bodyHash: hashBody(text), index };
  const topic = getOnlyTopic(audiences);
  return { audiences, topic, type, data, volatile, expiresAt, idempotency };
}

/**
 * Returns string data unchanged, and other data as the JSON text that the publisher sent, because parsing
 * loses digits of numbers and duplicate members.
 */
function toDataText(data: unknown, eventText: string): string {
  return typeof data === 'string' ? data : (sliceMember(eventText, 'data') ?? JSON.stringify(data));
}

function isLifetime(value: unknown): value is number {
  return Number.isInteger(value) && Number(value) >= 1 && Number(value) <= expiresInMaxMs;
}
