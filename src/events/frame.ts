import { isTopic } from './topic.js';

/**
 * The encoded bytes of an event, the same for all clients. `seq` is 0 if the event is not in the event log.
 */
export interface Frame {
  readonly seq: number;
  readonly bytes: Buffer;
}

export interface FrameFields {
  readonly id?: string;
  readonly event?: string | undefined;
  /** Sent as a line `topic:`, which `EventSource` ignores. */
  readonly topic?: string | undefined;
  readonly data: string;
  /** The client's reconnection time from then on. Truncated to whole ms; at least 0. */
  readonly retryMs?: number;
}

const eventNamePattern = /^[\w.:-]{1,64}$/;
const lineEndPattern = /\r\n|\r|\n/;

/** A comment line. No blank line follows, because some clients would take a blank line for an empty event. */
export const heartbeatComment = Buffer.from(':\n');

/**
 * Encodes one Server-Sent Event: UTF-8, LF only, one blank line at its end. Every line of `data` is
 * prefixed, so data cannot end its event or begin another. Empty data is sent as one empty line. The `id:`
 * line is the last, because some clients store the id when they read it, before the event is complete.
 *
 * Throws `TypeError` for an `id` that is not 1 to 64 visible ASCII characters, for an `event` that is not
 * 1 to 64 of `A-Z a-z 0-9 _ . : -`, for a `topic` that `isTopic` does not accept, and for `data` with NUL or a
 * lone surrogate, which clients would not receive unchanged.
 *
 * Spec: WHATWG HTML §9.2.6.
 */
export function encodeFrame({ id, event, topic, data, retryMs }: FrameFields): Buffer {
  if (id !== undefined && !/^[\x21-\x7e]{1,64}$/.test(id)) {
    throw new TypeError('Cannot encode event: its id is not 1 to 64 visible ASCII characters');
  }
  if (event !== undefined && !eventNamePattern.test(event)) {
    throw new TypeError('Cannot encode event: its name is not 1 to 64 of A-Z a-z 0-9 _ . : -');
  }
  if (topic !== undefined && !isTopic(topic)) {
    throw new TypeError('Cannot encode event: its topic is not valid');
  }
  if (!isEncodable(data)) {
    throw new TypeError('Cannot encode event: its data holds NUL or a lone surrogate');
  }
  let text = retryMs === undefined ? '' : `retry: ${Math.max(0, Math.trunc(retryMs))}\n`;
  if (event !== undefined) text += `event: ${event}\n`;
  if (topic !== undefined) text += `topic: ${topic}\n`;
  for (const line of splitLines(data)) text += `data: ${line}\n`;
  if (id !== undefined) text += `id: ${id}\n`;
  return Buffer.from(`${text}\n`);
}

function splitLines(text: string): readonly string[] {
  // Most data is one line, and two `includes` calls are faster than the regular expression.
  return text.includes('\n') || text.includes('\r') ? text.split(lineEndPattern) : [text];
}

/** Returns whether UTF-8 and every database keep `text` unchanged: it has no NUL and no lone surrogate. */
export function isEncodable(text: string): boolean {
  return !text.includes('\0') && !/\p{Surrogate}/u.test(text);
}

/** Event names that the EventSource of browsers (`error`, `open`) and Herald (`count`) reserve for themselves. */
const reservedNames = ['error', 'open', 'count'];

/** Returns whether a publisher may use `name` as the type of an event. */
export function isPublishableName(name: string): boolean {
  return (
    eventNamePattern.test(name) && !reservedNames.includes(name) && !name.startsWith('stream.')
  );
}

/**
 * Encodes a control event with `data` as JSON. Without `id` the event does not change a client's
 * `Last-Event-ID`. `retryMs` is sent in the same event, because many clients ignore a `retry:` without data.
 */
export function controlFrame(
  event: string,
  data: unknown,
  fields: Pick<FrameFields, 'id' | 'retryMs'> = {},
): Frame {
  return { seq: 0, bytes: encodeFrame({ event, data: JSON.stringify(data), ...fields }) };
}
