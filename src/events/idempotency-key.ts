import { createHash } from 'node:crypto';
import { minify } from './raw-json.js';

/** A publisher's key for a request or an event, so that a retry does not publish the event twice. */
export interface IdempotencyKey {
  readonly key: string;
  /** Hash of the JSON text that was sent with the key, by `hashBody`. */
  readonly bodyHash: string;
}

/** Returns whether a value is an idempotency key: 1 to 255 printable ASCII characters, including spaces. */
export function isIdempotencyKey(value: unknown): value is string {
  return typeof value === 'string' && /^[\x20-\x7e]{1,255}$/.test(value);
}

/** Returns the SHA-256 of JSON text in hex. Whitespace outside of strings makes no difference. */
export function hashBody(text: string): string {
  return createHash('sha256').update(minify(text)).digest('hex');
}
