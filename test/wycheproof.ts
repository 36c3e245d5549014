// node --import tsx test/wycheproof.ts <folder>: runs the JSON Web vectors of C2SP/wycheproof, from its
// folder `testvectors_v1`, through our verifier, and lists where they and we differ. Exit code 1 when a
// difference is not explained below (and in docs/security.md) or an explanation is not needed.
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
  /** Undefined for encryption; an object for the JSON serialization. */
  readonly jws?: unknown;
}

interface Group {
  readonly private?: Key & { readonly keys?: readonly Key[] };
  readonly tests: readonly Vector[];
}

/** Why we differ, by file and number of the vector. */
const explained: Readonly<Record<string, Readonly<Record<string, readonly number[]>>>> = {
  json_web_signature: {
    'a token without claims is none': [259, 264, 268, 272, 320, 325],
    'a key serves the one algorithm it is labelled with': [346, 347, 350, 351],
    'the very bytes of the valid vector 357': [367, 370],
    'characters outside base64url are not skipped': [372, 373],
    'our headers have no white space': [376, 377],
  },
  json_web_key: {
    'RSA keys are the operator’s own, not looked at for ROCA': [7],
    'keys come as PEM files, which have no `use`': [21],
  },
  json_web_crypto: {
    'RSA keys are the operator’s own, not looked at for ROCA': [46],
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
  let count = 0;
  let same = 0;
  for (const group of testGroups) {
    for (const vector of group.tests) {
      if (vector.jws === undefined) continue; // Encryption, which we do not do.
      count += 1;
      const ours = verdictOn(vector.jws, group.private ?? {});
      const reason = reasons.get(vector.tcId);
      const isSame = ours === vector.result;
      if (isSame) same += 1;
      if (!isSame || reason !== undefined) {
        const why = isSame ? 'EXPLAINED, BUT THE SAME' : (reason ?? 'NOT EXPLAINED');
        if (isSame || reason === undefined) unexplained += 1;
        const { tcId, comment, result } = vector;
        console.log(`${name} ${tcId} ${comment}: expected ${result}, ours ${ours}: ${why}`);
      }
    }
  }
  console.log(`${name}: ${same} of ${count} as expected`);
}
process.exitCode = unexplained === 0 ? 0 : 1;

/** What our verifier says to a signature whose payload is not a token's: only its claims may lack. */
function verdictOn(jws: unknown, given: Key & { readonly keys?: readonly Key[] }): string {
  let ring: KeyRing;
  try {
    ring = ringOf(given.keys ?? [given]);
  } catch {
    return 'invalid'; // Such keys do not get past the start.
  }
  const tokens = new AccessTokens({
    ring,
    threads: { run: () => Promise.reject(new Error('Nothing is signed here')) },
    ...{ audience: 'a', issuer: 'i', lifeMs: 3_600_000, clockToleranceMs: 0 },
  });
  try {
    tokens.verify(jws as string); // Anything may come; it is checked.
  } catch (cause) {
    if (!(cause instanceof Failure) || cause.name !== 'invalid_token') throw cause;
    // The audience is looked at when the signature has been found right.
    const why = cause.cause instanceof Error ? cause.cause.message : '';
    return /^(jwt audience invalid|Not for us)/.test(why) ? 'valid' : 'invalid';
  }
  throw new Error('A vector passed for an access token');
}

/** As an operator would give us these keys, found by the names they have in the vectors. */
function ringOf(keys: readonly Key[]): KeyRing {
  const rings = keys.map((key) => [key.kid, ringOfOne(key)] as const);
  const [[, first] = []] = rings;
  if (first === undefined) throw new Error('no key');
  const isMixed = new Set(rings.map(([, { jwks }]) => jwks === undefined)).size > 1;
  const isTwice = new Set(keys.map(({ kid }) => kid)).size < keys.length;
  if (isMixed || isTwice) throw new Error('keys that do not go together');
  const byId = new Map<unknown, KeyRing>(rings);
  return {
    ...first,
    find: (id) => {
      const ring = id === undefined ? first : byId.get(id);
      return ring?.find(undefined);
    },
  };
}

function ringOfOne(key: Key): KeyRing {
  const algorithm = algorithms.find((one) => one === key.alg);
  if (algorithm === undefined) throw new Error('no algorithm of ours');
  if (key.kty === 'oct') return secretRing(algorithm, Buffer.from(key.k ?? '', 'base64url'));
  const privateKey = createPrivateKey({ key, format: 'jwk' });
  const privateKeyPem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  return createKeyRing({ algorithm, privateKeyPem });
}

function secretRing(algorithm: Algorithm, secret: Buffer): KeyRing {
  try {
    return createKeyRing({ algorithm, secret });
  } catch (cause) {
    // Many vectors have a key of zeros, or of 0, 1, 2 and so on. It would not get past the start,
    // but what they ask about the verifier is asked all the same.
    if (!(cause instanceof Error && /must be random/.test(cause.message))) throw cause;
    const key = { id: '', algorithm, key: createSecretKey(secret) };
    return { signingKey: key, find: () => key, jwks: undefined };
  }
}
