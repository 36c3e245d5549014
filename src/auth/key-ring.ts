import {
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  createSecretKey,
  type JsonWebKey,
  type KeyObject,
} from 'node:crypto';
import type { Algorithm } from '../config/config.js';
import { canVerify, keyRequirement, splitPublicPems } from '../config/public-keys.js';
import { findWeakness } from '../config/secret-strength.js';

export interface KeyRingOptions {
  readonly algorithm: Algorithm;
  /** Required for HS algorithms; ignored for others. */
  readonly secret?: Uint8Array | undefined;
  /** At most 3; ignored for algorithms other than HS. */
  readonly previousSecrets?: readonly Uint8Array[] | undefined;
  /** Required for RS, PS and ES algorithms; rejected with HS. */
  readonly privateKeyPem?: string | undefined;
  /** Concatenated PEM blocks, at most 3; rejected with HS. */
  readonly previousPublicKeysPem?: string | undefined;
}

export interface SigningKey {
  /** The `kid` in token headers. Not secret. */
  readonly id: string;
  readonly algorithm: Algorithm;
  readonly key: KeyObject;
}

export interface VerifyingKey {
  readonly id: string;
  /** The only algorithm this key verifies. */
  readonly algorithm: Algorithm;
  readonly key: KeyObject;
}

export interface KeyRing {
  readonly signingKey: SigningKey;
  /**
   * Returns the key with this `kid`, or undefined for an unknown `kid`. For a token without a `kid`
   * (undefined), returns the current key.
   */
  find(id: unknown): VerifyingKey | undefined;
  /** Public keys for verifying tokens; undefined for HS algorithms. Spec: RFC 7517 §5. */
  readonly jwks: { readonly keys: readonly JsonWebKey[] } | undefined;
}

const previousMax = 3;

/**
 * Creates a key ring: the signing key, and up to 3 previous keys that still verify. All keys are used
 * with `algorithm` only, so the `alg` of a token cannot select another algorithm for a key.
 *
 * Throws an Error with a message for the operator when a key is missing, weak, of the wrong type or
 * listed twice. Spec: RFC 8725 §3.1, RFC 7518 §3.
 */
export function createKeyRing(options: KeyRingOptions): KeyRing {
  const isSymmetric = options.algorithm.startsWith('HS');
  const { signingKey, verifyingKeys } = isSymmetric
    ? loadSecretKeys(options)
    : loadKeyPairs(options);
  const byId = new Map<unknown, VerifyingKey>(verifyingKeys.map((key) => [key.id, key]));
  if (verifyingKeys.length > previousMax + 1) {
    throw new Error(`Cannot make key ring: ${previousMax} previous keys at most`);
  }
  if (byId.size < verifyingKeys.length) {
    throw new Error('Cannot make key ring: the same key is listed twice');
  }
  return {
    signingKey,
    find: (id) => byId.get(id === undefined ? signingKey.id : id),
    jwks: isSymmetric ? undefined : { keys: verifyingKeys.map(toJwk) },
  };
}

interface LoadedKeys {
  readonly signingKey: SigningKey;
  /** The current key is first. */
  readonly verifyingKeys: readonly VerifyingKey[];
}

function loadSecretKeys({
  algorithm,
  secret,
  previousSecrets = [],
  ...pems
}: KeyRingOptions): LoadedKeys {
  if (pems.privateKeyPem !== undefined || pems.previousPublicKeysPem !== undefined) {
    throw new Error(`Cannot make key ring: ${algorithm} takes no private or public keys`);
  }
  if (secret === undefined) throw new Error(`Cannot make key ring: ${algorithm} needs a secret`);
  const signingKey = loadSecretKey(algorithm, secret, 'the secret');
  const previous = previousSecrets.map((older) =>
    loadSecretKey(algorithm, older, 'a previous secret'),
  );
  return { signingKey, verifyingKeys: [signingKey, ...previous] };
}

function loadSecretKey(algorithm: Algorithm, secret: Uint8Array, what: string): SigningKey {
  const weakness = findWeakness(algorithm, secret);
  if (weakness !== undefined) throw new Error(`Cannot make key ring: ${what} ${weakness}`);
  const id = createHmac('sha256', secret).update('kid').digest('base64url').slice(0, 10);
  return { id, algorithm, key: createSecretKey(secret) };
}

function loadKeyPairs({
  algorithm,
  privateKeyPem,
  previousPublicKeysPem,
}: KeyRingOptions): LoadedKeys {
  if (privateKeyPem === undefined) {
    throw new Error(`Cannot make key ring: ${algorithm} needs a private key`);
  }
  const key = parseKey(createPrivateKey, privateKeyPem, 'the private key');
  const current = loadPublicKey(algorithm, createPublicKey(key));
  const previous = parsePreviousPems(previousPublicKeysPem).map((pem) =>
    loadPublicKey(algorithm, parseKey(createPublicKey, pem, 'a previous public key')),
  );
  return { signingKey: { ...current, key }, verifyingKeys: [current, ...previous] };
}

function parsePreviousPems(text: string | undefined): readonly string[] {
  if (text === undefined) return [];
  const pems = splitPublicPems(text);
  if (pems === undefined) {
    throw new Error('Cannot make key ring: previous public keys must be "BEGIN PUBLIC KEY" blocks');
  }
  return pems;
}

function parseKey(read: (pem: string) => KeyObject, pem: string, what: string): KeyObject {
  try {
    return read(pem);
  } catch (cause) {
    throw new Error(`Cannot make key ring: ${what} is not an unencrypted PEM key`, { cause });
  }
}

function loadPublicKey(algorithm: Algorithm, key: KeyObject): VerifyingKey {
  if (!canVerify(algorithm, key)) {
    throw new Error(`Cannot make key ring: ${algorithm} needs ${keyRequirement(algorithm)}`);
  }
  return { id: computeThumbprint(key), algorithm, key };
}

/** Computes the JWK thumbprint. Spec: RFC 7638 §3 (only required members, in alphabetical order). */
function computeThumbprint(key: KeyObject): string {
  const { crv, e, kty, n, x, y } = key.export({ format: 'jwk' });
  const members = JSON.stringify({ crv, e, kty, n, x, y }); // Undefined members are omitted.
  return createHash('sha256').update(members).digest('base64url');
}

function toJwk({ id, algorithm, key }: VerifyingKey): JsonWebKey {
  return { ...key.export({ format: 'jwk' }), kid: id, alg: algorithm, use: 'sig' };
}
