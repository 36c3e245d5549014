import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';

/** The last character has two unused bits, which are zero in every key that was created. */
const keyPattern = /^hk_([0-9a-f]{16})_[\w-]{42}[AEIMQUYcgkosw048]$/;

/** Creates the text of a key, `hk_<id, 16 hex>_<secret, base64url of 32 bytes>`. */
export function createKey(): { readonly id: string; readonly key: string } {
  const id = randomBytes(8).toString('hex');
  return { id, key: `hk_${id}_${randomBytes(32).toString('base64url')}` };
}

/** Returns the id in the text of a key; undefined for a text that is not a key. */
export function parseKeyId(text: string): string | undefined {
  return keyPattern.exec(text)?.[1];
}

/** Returns the SHA-256 of a key. Only this hash is stored. */
export function hashKey(key: string): string {
  return createHash('sha256').update(key).digest('hex');
}

/** Returns whether a key has this hash. Compares in constant time. */
export function hasHash(key: string, hash: string): boolean {
  return timingSafeEqual(Buffer.from(hashKey(key)), Buffer.from(hash));
}
