import { createHash } from 'node:crypto';
import { minify } from './raw-json.js';

/** A name that a publisher gives to a request or an event, so that a retry does not publish it twice. */
export interface IdempotencyKey {
  readonly key: string;
  /** Hash of what was sent under the key. */
  readonly bodyHash: string;
}

/** Returns whether a value is an idempotency key: 1 to 255 printable ASCII characters or blanks. */
export function isIdempotencyKey(value: unknown): value is string {
  return typeof value === 'string' && /^[\x20-\x7e]{1,255}$/.test(value);
}

/** Returns the SHA-256 of JSON text in hex. Blanks outside of strings do not count. */
export function hashBody(text: string): string {
  return createHash('sha256').update(minify(text)).digest('hex');
}
