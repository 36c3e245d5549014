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
import { findWeakness } from '../config/secret-strength.js';

export interface KeyRingOptions {
  readonly algorithm: Algorithm;
  /** Required for HS algorithms; ignored for others. */
  readonly secret?: Uint8Array | undefined;
  readonly previousSecrets?: readonly Uint8Array[] | undefined;
  /** Required for RS, PS and ES algorithms; rejected with HS. */
  readonly privateKeyPem?: string | undefined;
  /** Concatenated PEM blocks. */
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
  /** Returns the key with this `kid`. A token without a `kid` gets the current key. Undefined for an unknown `kid`. */
  find(id: unknown): VerifyingKey | undefined;
  /** Public keys for verifying tokens; undefined for HS algorithms. Spec: RFC 7517 §5. */
  readonly jwks: { readonly keys: readonly JsonWebKey[] } | undefined;
}

const previousMax = 3;
const curveByAlgorithm: Readonly<Record<string, string>> = {
  ES256: 'prime256v1',
  ES384: 'secp384r1',
  ES512: 'secp521r1',
};

/**
 * Creates a key ring: the signing key, and up to 3 previous keys that still verify. All keys are of
 * one type and each is used with one algorithm, so the `alg` of a
 * token cannot make a key be used with another algorithm.
 *
 * Throws an Error with a message for the operator when a key is missing, weak, of the wrong type or
 * listed twice. Spec: RFC 8725 §3.1, RFC 7518 §3.
 */
export function createKeyRing(options: KeyRingOptions): KeyRing {
  const isSecret = options.algorithm.startsWith('HS');
  const { signingKey, verifyingKeys } = isSecret ? loadSecretKeys(options) : loadKeyPairs(options);
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
    jwks: isSecret ? undefined : { keys: verifyingKeys.map(toJwk) },
  };
}

interface Keys {
  readonly signingKey: SigningKey;
  /** The current key is first. */
  readonly verifyingKeys: readonly VerifyingKey[];
}

function loadSecretKeys({
  algorithm,
  secret,
  previousSecrets = [],
  ...pems
}: KeyRingOptions): Keys {
  if (pems.privateKeyPem !== undefined || pems.previousPublicKeysPem !== undefined) {
    throw new Error(`Cannot make key ring: ${algorithm} takes no private or public keys`);
  }
  if (secret === undefined) throw new Error(`Cannot make key ring: ${algorithm} needs a secret`);
  const signingKey = loadSecretKey(algorithm, secret, 'the secret');
  const previous = previousSecrets.map((one) => loadSecretKey(algorithm, one, 'a previous secret'));
  return { signingKey, verifyingKeys: [signingKey, ...previous] };
}

function loadSecretKey(algorithm: Algorithm, secret: Uint8Array, what: string): SigningKey {
  const weakness = findWeakness(algorithm, secret);
  if (weakness !== undefined) throw new Error(`Cannot make key ring: ${what} ${weakness}`);
  const id = createHmac('sha256', secret).update('kid').digest('base64url').slice(0, 10);
  return { id, algorithm, key: createSecretKey(secret) };
}

function loadKeyPairs({ algorithm, privateKeyPem, previousPublicKeysPem }: KeyRingOptions): Keys {
  if (privateKeyPem === undefined) {
    throw new Error(`Cannot make key ring: ${algorithm} needs a private key`);
  }
  const key = parseKey(createPrivateKey, privateKeyPem, 'the private key');
  const current = loadPublicKey(algorithm, createPublicKey(key));
  const previous = splitPublicPems(previousPublicKeysPem).map((pem) =>
    loadPublicKey(algorithm, parseKey(createPublicKey, pem, 'a previous public key')),
  );
  return { signingKey: { ...current, key }, verifyingKeys: [current, ...previous] };
}

function splitPublicPems(text: string | undefined): readonly string[] {
  if (text === undefined) return [];
  const pems = text.match(/-----BEGIN PUBLIC KEY-----[^-]+-----END PUBLIC KEY-----/g) ?? [];
  const otherText = pems.reduce((left, pem) => left.replace(pem, ''), text);
  if (pems.length === 0 || otherText.includes('-----BEGIN')) {
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
  const { asymmetricKeyType: type, asymmetricKeyDetails: details = {} } = key;
  const curve = curveByAlgorithm[algorithm];
  const isMatching =
    curve === undefined
      ? type === 'rsa' && (details.modulusLength ?? 0) >= 2048
      : type === 'ec' && details.namedCurve === curve;
  if (!isMatching) {
    const wanted =
      curve === undefined ? 'an RSA key of 2048 bits or more' : `an EC key on ${curve}`;
    throw new Error(`Cannot make key ring: ${algorithm} needs ${wanted}`);
  }
  return { id: thumbprint(key), algorithm, key };
}

/** Computes the JWK thumbprint. Spec: RFC 7638 §3 (only required members, in alphabetical order). */
function thumbprint(key: KeyObject): string {
  const { crv, e, kty, n, x, y } = key.export({ format: 'jwk' });
  const members = JSON.stringify({ crv, e, kty, n, x, y }); // Undefined members are omitted.
  return createHash('sha256').update(members).digest('base64url');
}

function toJwk({ id, algorithm, key }: VerifyingKey): JsonWebKey {
  return { ...key.export({ format: 'jwk' }), kid: id, alg: algorithm, use: 'sig' };
}
