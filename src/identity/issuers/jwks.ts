import { createPublicKey, type JsonWebKey, type KeyObject } from 'node:crypto';
import { canVerify } from '../../config/public-keys.js';

/** A public key of a JWKS. */
export interface JwksKey {
  readonly id: unknown;
  /** The algorithms of the issuer that this key may verify; at least one. */
  readonly algorithms: readonly string[];
  readonly key: KeyObject;
}

export const jwksKeysMax = 100;

/**
 * Returns the keys of a JWKS that can verify signatures of one of these algorithms. Ignores all other keys, such
 * as encryption keys, weak keys, private keys and keys with invalid members. Throws an Error if the text is not
 * a JWKS, if it has more than 100 keys, or if no key is usable. The message of the Error contains no part of the
 * text. Spec: RFC 7517 §4 and §5.
 */
export function parseJwks(text: string, algorithms: readonly string[]): readonly JwksKey[] {
  const members = parseMembers(text);
  if (members.length > jwksKeysMax) throw new Error(`more than ${jwksKeysMax} keys`);
  const keys = members.flatMap((member) => parseKey(member, algorithms));
  if (keys.length === 0) throw new Error('no usable key');
  return keys;
}

function parseMembers(text: string): readonly unknown[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error('not JSON');
  }
  const keys = isObject(value) ? value['keys'] : undefined;
  if (!Array.isArray(keys)) throw new Error('not a JWKS');
  return keys;
}

/** Returns a list of one key, or an empty list for a member that cannot be used. */
function parseKey(member: unknown, algorithms: readonly string[]): readonly JwksKey[] {
  // `createPublicKey` would also accept a private key. A private key that is published must not be trusted.
  if (!isObject(member) || 'd' in member || !isForVerifying(member)) return [];
  const key = createKey(member);
  if (key === undefined) return [];
  const { alg, kid } = member;
  const usable = algorithms.filter(
    (algorithm) => (alg === undefined || alg === algorithm) && canVerify(algorithm, key),
  );
  return usable.length === 0 ? [] : [{ id: kid, algorithms: usable, key }];
}

function isForVerifying({ use, key_ops: operations }: Record<string, unknown>): boolean {
  const isAllowed = Array.isArray(operations)
    ? operations.includes('verify')
    : operations === undefined;
  return isAllowed && (use === undefined || use === 'sig');
}

function createKey(jwk: JsonWebKey): KeyObject | undefined {
  try {
    return createPublicKey({ key: jwk, format: 'jwk' });
  } catch {
    return undefined; // The function throws only for a member that is not a key.
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
