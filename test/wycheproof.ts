// node --import tsx test/wycheproof.ts <folder>: runs the JSON Web test vectors of C2SP/wycheproof, from its
// folder `testvectors_v1`, through Herald's verifier, and lists the vectors whose verdict is not the
// expected one. Exits with code 1 when a difference has no explanation below (and in docs/security.md), or when
// an explained vector does not differ.
import { createPrivateKey, createSecretKey, type JsonWebKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { AccessTokens } from '../src/auth/access-token.js';
import { createKeyRing, type KeyRing } from '../src/auth/key-ring.js';
import { type Algorithm, algorithms } from '../src/config/config.js';
import { Failure } from '../src/errors.js';

interface Key extends JsonWebKey {
  readonly kid?: string;
  readonly alg?: string;
}

interface Vector {
  readonly tcId: number;
  readonly comment: string;
  readonly result: 'valid' | 'invalid';
  /** The signed message. Undefined in vectors of encryption; an object in the JSON serialization. */
  readonly jws?: unknown;
}

interface Group {
  readonly private?: Key & { readonly keys?: readonly Key[] };
  readonly tests: readonly Vector[];
}

/** Why Herald's verdict differs: for each file the reasons, with the numbers (`tcId`) of their vectors. */
const explained: Readonly<Record<string, Readonly<Record<string, readonly number[]>>>> = {
  json_web_signature: {
    'a token without claims is not an access token': [259, 264, 268, 272, 320, 325],
    'a key is used only for its own algorithm': [346, 347, 350, 351],
    'identical to vector 357, which is valid': [367, 370],
    'characters outside base64url are rejected, not skipped': [372, 373],
    'the headers that Herald issues have no white space': [376, 377],
  },
  json_web_key: {
    'RSA keys come from the operator and are not checked for ROCA': [7],
    'keys are read from PEM files, which have no `use`': [21],
  },
  json_web_crypto: {
    'RSA keys come from the operator and are not checked for ROCA': [46],
  },
};

const names = ['json_web_signature', 'json_web_key', 'json_web_crypto'];
const [folder = '.'] = process.argv.slice(2);
let unexplained = 0;

for (const name of names) {
  const file = join(folder, `${name}_test.json`);
  const { testGroups }: { testGroups: Group[] } = JSON.parse(readFileSync(file, 'utf8'));
  const reasons = new Map(
    Object.entries(explained[name] ?? {}).flatMap(([why, ids]) => ids.map((id) => [id, why])),
  );
  let vectorCount = 0;
  let sameCount = 0;
  for (const group of testGroups) {
    for (const vector of group.tests) {
      if (vector.jws === undefined) continue; // Herald does not decrypt tokens.
      vectorCount += 1;
      const verdict = verify(vector.jws, group.private ?? {});
      const reason = reasons.get(vector.tcId);
      const isSame = verdict === vector.result;
      if (isSame) sameCount += 1;
      if (!isSame || reason !== undefined) {
        const why = isSame ? 'EXPLAINED, BUT NO DIFFERENCE' : (reason ?? 'NOT EXPLAINED');
        if (isSame || reason === undefined) unexplained += 1;
        const { tcId, comment, result } = vector;
        console.log(`${name} ${tcId} ${comment}: expected ${result}, got ${verdict}: ${why}`);
      }
    }
  }
  console.log(`${name}: ${sameCount} of ${vectorCount} as expected`);
}
process.exitCode = unexplained === 0 ? 0 : 1;

/**
 * Verifies a signature by Herald's verifier. The payloads of the vectors are no access tokens, so a message
 * with a valid signature is rejected because of its claims.
 */
function verify(jws: unknown, keySet: Key & { readonly keys?: readonly Key[] }): string {
  let ring: KeyRing;
  try {
    ring = createRing(keySet.keys ?? [keySet]);
  } catch {
    return 'invalid'; // Herald does not start with such keys.
  }
  const tokens = new AccessTokens({
    ring,
    threads: { run: () => Promise.reject(new Error('Nothing is signed here')) },
    ...{ audience: 'a', issuer: 'i', lifeMs: 3_600_000, clockToleranceMs: 0 },
  });
  try {
    tokens.verify(jws as string); // Not always a string; `verify` checks that.
  } catch (cause) {
    if (!(cause instanceof Failure) || cause.name !== 'invalid_token') throw cause;
    // The audience is checked only after the signature has been found valid.
    const why = cause.cause instanceof Error ? cause.cause.message : '';
    return /^(jwt audience invalid|Not for us)/.test(why) ? 'valid' : 'invalid';
  }
  throw new Error('A vector was accepted as an access token');
}

/** Returns a key ring as if an operator had configured these keys. Finds each by its `kid` in the vector. */
function createRing(keys: readonly Key[]): KeyRing {
  const rings = keys.map((key) => [key.kid, createRingOfOne(key)] as const);
  const [[, first] = []] = rings;
  if (first === undefined) throw new Error('no key');
  const isMixed = new Set(rings.map(([, { jwks }]) => jwks === undefined)).size > 1;
  const hasDuplicate = new Set(keys.map(({ kid }) => kid)).size < keys.length;
  if (isMixed || hasDuplicate) throw new Error('keys that cannot be used together');
  const byId = new Map<unknown, KeyRing>(rings);
  return {
    ...first,
    find: (id) => {
      const ring = id === undefined ? first : byId.get(id);
      return ring?.find(undefined);
    },
  };
}

function createRingOfOne(key: Key): KeyRing {
  const algorithm = algorithms.find((one) => one === key.alg);
  if (algorithm === undefined) throw new Error('no algorithm that Herald supports');
  if (key.kty === 'oct') return createSecretRing(algorithm, Buffer.from(key.k ?? '', 'base64url'));
  const privateKey = createPrivateKey({ key, format: 'jwk' });
  const privateKeyPem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  return createKeyRing({ algorithm, privateKeyPem });
}

function createSecretRing(algorithm: Algorithm, secret: Buffer): KeyRing {
  try {
    return createKeyRing({ algorithm, secret });
  } catch (cause) {
    // Many vectors have a key of zeros, or of the bytes 0, 1, 2 and so on. Herald does not start with such
    // a key, but the vectors test the verifier, so it gets the key nevertheless.
    if (!(cause instanceof Error && /must be random/.test(cause.message))) throw cause;
    const key = { id: '', algorithm, key: createSecretKey(secret) };
    return { signingKey: key, find: () => key, jwks: undefined };
  }
}
