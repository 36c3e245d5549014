/** The bytes of one event as every client gets them. `seq` is 0 for what is not in the log. */
export interface Frame {
  readonly seq: number;
  readonly bytes: Buffer;
}

export interface FrameFields {
  readonly id?: string;
  readonly event?: string;
  readonly data: string;
}

/** What may name an event: no `error`, no `open` (the browser's own), no `stream.*` (ours). */
const eventNamePattern = /^[\w.:-]{1,64}$/;
const lineEndPattern = /\r\n|\r|\n/;

export const heartbeat = Buffer.from(':\n\n');

/**
 * One Server-Sent Event, UTF-8, LF only, one blank line at its end. Every line of `data` is
 * prefixed, so a payload can never end its event or begin another; an empty string is one empty line.
 *
 * Throws `TypeError` for an `id` or `event` that would break out of its line, and for text that
 * would not come back as it went in (NUL, lone surrogates).
 *
 * Spec: WHATWG HTML §9.2.6.
 */
export function encodeFrame({ id, event, data }: FrameFields): Buffer {
  if (id !== undefined && !/^[\x21-\x7e]{1,64}$/.test(id)) {
    throw new TypeError('Cannot encode event: its id is not 1 to 64 visible ASCII characters');
  }
  if (event !== undefined && !eventNamePattern.test(event)) {
    throw new TypeError('Cannot encode event: its name is not 1 to 64 of A-Z a-z 0-9 _ . : -');
  }
  if (!isEncodable(data)) {
    throw new TypeError('Cannot encode event: its data holds NUL or a lone surrogate');
  }
  let text = id === undefined ? '' : `id: ${id}\n`;
  if (event !== undefined) text += `event: ${event}\n`;
  for (const line of splitLines(data)) text += `data: ${line}\n`;
  return Buffer.from(`${text}\n`);
}

function splitLines(text: string): readonly string[] {
  // Most are one line, and to look for two characters is faster than to look for one of them.
  return text.includes('\n') || text.includes('\r') ? text.split(lineEndPattern) : [text];
}

/** Whether `text` survives the way through UTF-8 and every database: no NUL, well-formed. */
export function isEncodable(text: string): boolean {
  return !text.includes('\0') && !/\p{Surrogate}/u.test(text);
}

/** The browser's own, and Herald's. */
const reservedNames = ['error', 'open', 'count'];

/** Whether a publisher may use `name` as an event's type. */
export function isPublishableName(name: string): boolean {
  return (
    eventNamePattern.test(name) && !reservedNames.includes(name) && !name.startsWith('stream.')
  );
}

/** An event of Herald's own. It has no `id:`, so it never moves a client's `Last-Event-ID`. */
export function controlFrame(event: string, data: unknown): Frame {
  return { seq: 0, bytes: encodeFrame({ event, data: JSON.stringify(data) }) };
}

/** Sets the client's reconnection time. Whole milliseconds, 0 or more. */
export function retryBytes(retryMs: number): Buffer {
  return Buffer.from(`retry: ${Math.max(0, Math.trunc(retryMs))}\n\n`);
}
