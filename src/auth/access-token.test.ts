import assert from 'node:assert/strict';
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import {
  forgedTokens,
  forgePublic,
  forgeSecret,
} from '../../test/support/clients/forged-tokens.js';
import { type Algorithm, algorithms } from '../config/config.js';
import { Failure } from '../errors.js';
import { silentLogger } from '../logging/logger.js';
import { AccessTokens, type AccessTokensOptions } from './access-token.js';
import { createKeyRing, type KeyRing } from './key-ring.js';
import { openAuthThreads } from './threads.js';

/** Creates 64 bytes that pass the check for weak secrets. */
const createSecret = (start: number) =>
  Buffer.from(Array.from({ length: 64 }, (_, index) => (start * 50 + index * 7) % 256));
const [secret, otherSecret, thirdSecret] = [createSecret(1), createSecret(2), createSecret(3)];
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const rsaPublicPem = rsa.publicKey.export({ type: 'spki', format: 'pem' }).toString();
const curves = { ES256: 'P-256', ES384: 'P-384', ES512: 'P-521' } as const;

const nowSeconds = 1_767_225_600;
const userId = '42';
const sessionId = '0123456789abcdef0123456789abcdef';
const subject = { userId, sessionId, firstName: 'Ada', lastName: 'Lovelace' };
const ring = createKeyRing({ algorithm: 'HS256', secret });

const noThreads: AccessTokensOptions['threads'] = {
  run: () => Promise.reject(new Error('This test signs without threads')),
};

function createTokens(changes: Partial<AccessTokensOptions> = {}): AccessTokens {
  return new AccessTokens({
    ring,
    threads: noThreads,
    audience: 'herald-clients',
    issuer: 'herald',
    lifeMs: 3_600_000,
    clockToleranceMs: 5000,
    wallClock: () => nowSeconds * 1000 + 999,
    ...changes,
  });
}

/** Creates access tokens with a signing thread. */
async function createSigningTokens(
  t: TestContext,
  keys: KeyRing,
  changes = {},
): Promise<AccessTokens> {
  const threads = await openAuthThreads({
    count: 1,
    queuePerThreadMax: 64,
    queueWaitMaxMs: 60_000,
    ring: keys,
    log: silentLogger,
  });
  t.after(() => threads.close());
  return createTokens({ ring: keys, threads, ...changes });
}

const claims = {
  firstName: 'Ada',
  lastName: 'Lovelace',
  sid: sessionId,
  sub: userId,
  iat: nowSeconds,
  exp: nowSeconds + 3600,
  aud: 'herald-clients',
  iss: 'herald',
};
const header = { alg: 'HS256', typ: 'JWT', kid: ring.signingKey.id };

/** Signs a token without Herald's code, by default with the key of the ring. */
const forge = (head: unknown, payload: unknown, key: Uint8Array = secret) =>
  forgeSecret(head, payload, key);

const forgeRs = (head: unknown, key: KeyObject) => forgePublic(head, claims, key);

function createKeys(algorithm: Algorithm): KeyRing {
  if (algorithm.startsWith('HS')) return createKeyRing({ algorithm, secret });
  const curve = curves[algorithm as keyof typeof curves];
  const { privateKey } =
    curve === undefined ? rsa : generateKeyPairSync('ec', { namedCurve: curve });
  const privateKeyPem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  return createKeyRing({ algorithm, privateKeyPem });
}

/** Lists other texts that lenient decoders read as the same token. */
function listSpellings(token: string): readonly string[] {
  const bytes = Buffer.from(token.split('.')[2] ?? '', 'base64url');
  const last = token.slice(-1);
  const digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  // The last digit has unused bits, so the next digit decodes to the same bytes.
  const nextDigit = digits[digits.indexOf(last) + 1];
  const respelled = bytes.length % 3 === 0 ? [] : [token.slice(0, -1) + nextDigit];
  return [...respelled, `${token}=`, `${token}==`, `${token}\n`];
}

for (const algorithm of algorithms) {
  test(`a token signed with ${algorithm} carries the subject and has one valid spelling`, async (t) => {
    const keys = createKeys(algorithm);
    const tokens = await createSigningTokens(t, keys);

    const token = await tokens.sign(subject);

    assert.deepEqual(tokens.verify(token), {
      userId,
      sessionId,
      issuedAt: nowSeconds,
      expiresAt: nowSeconds + 3600,
    });
    const [head = '', payload = ''] = token
      .split('.')
      .map((part) => Buffer.from(part, 'base64url'));
    const kid = keys.signingKey.id;
    assert.deepEqual(JSON.parse(head.toString()), { alg: algorithm, typ: 'JWT', kid });
    assert.deepEqual(JSON.parse(payload.toString()), claims);
    for (const spelling of listSpellings(token)) {
      assert.throws(() => tokens.verify(spelling), isFailure('invalid_token'));
    }
  });
}

test('a valid token that was signed elsewhere is accepted', () => {
  assert.equal(createTokens().verify(forge(header, claims)).userId, userId);
});

test('a token without `sid`, as older versions issued it, has no session id', () => {
  const { sid: _, ...old } = claims;

  assert.equal(
    createTokens().verify(forge({ alg: 'HS256', typ: 'JWT' }, old)).sessionId,
    undefined,
  );
});

const forgeries = forgedTokens({ secret, header, claims });

for (const [what, token] of forgeries) {
  test(`a token with ${what} is invalid`, () => {
    assert.throws(() => createTokens().verify(token as string), isFailure('invalid_token'));
  });
}

function isFailure(name: string) {
  return (cause: unknown) => {
    assert.ok(cause instanceof Failure, String(cause));
    assert.equal(cause.name, name);
    assert.doesNotMatch(cause.message, /jwt|signature|algorithm/i); // Shows no text of `jsonwebtoken`.
    return true;
  };
}

for (const exp of [nowSeconds - 5, nowSeconds - 3600, 0, -1]) {
  test(`a token whose exp is ${exp} is expired`, () => {
    const token = forge(header, { ...claims, iat: exp - 3600, exp });

    assert.throws(() => createTokens().verify(token), isFailure('expired_token'));
  });
}

test('a clock difference of up to 5 s is tolerated in both directions', () => {
  const tokens = createTokens();

  const late = { ...claims, iat: nowSeconds - 3604, exp: nowSeconds - 4 };
  const early = { ...claims, iat: nowSeconds + 5, exp: nowSeconds + 3605, nbf: nowSeconds + 5 };
  for (const inTime of [late, early]) assert.ok(tokens.verify(forge(header, inTime)));
});

test('a token that was issued in the future is valid, and its lifetime is limited', () => {
  const tokens = createTokens();
  const iat = nowSeconds + 7200;
  const tokenUntil = (exp: number) => forge(header, { ...claims, iat, exp });

  assert.equal(tokens.verify(tokenUntil(iat + 3600)).issuedAt, iat);
  assert.throws(() => tokens.verify(tokenUntil(iat + 3606)), isFailure('invalid_token'));
});

test('a token expires exactly at its `exp`', async (t) => {
  let now = nowSeconds * 1000;
  const tokens = await createSigningTokens(t, ring, { wallClock: () => now, clockToleranceMs: 0 });
  const token = await tokens.sign(subject);

  now += 3_599_999;
  assert.ok(tokens.verify(token));
  now += 1;
  assert.throws(() => tokens.verify(token), isFailure('expired_token'));
});

test('a lowered lifetime also applies to tokens issued earlier', () => {
  const token = forge(header, claims);

  assert.throws(() => createTokens({ lifeMs: 900_000 }).verify(token), isFailure('invalid_token'));
});

test('a token stays valid after a key change until its key is removed', () => {
  const token = forge(header, claims);
  const withoutKid = forge({ alg: 'HS256', typ: 'JWT' }, claims);
  const verify = (secrets: readonly [Buffer, ...Buffer[]], given: string) => {
    const [current, ...previousSecrets] = secrets;
    const keys = createKeyRing({ algorithm: 'HS256', secret: current, previousSecrets });
    return createTokens({ ring: keys }).verify(given);
  };

  assert.equal(verify([otherSecret, secret], token).userId, userId);
  assert.equal(verify([thirdSecret, otherSecret, secret], token).userId, userId);
  assert.throws(() => verify([thirdSecret, otherSecret], token), isFailure('invalid_token'));
  // A token without `kid` is verified with the current key only.
  assert.throws(() => verify([otherSecret, secret], withoutKid), isFailure('invalid_token'));
});

test('a token signed with the key of another server is invalid', async (t) => {
  const otherRing = createKeyRing({ algorithm: 'HS256', secret: otherSecret });
  const rsaRing = createKeys('RS256');
  const [mine, theirs, third] = [
    await createSigningTokens(t, ring),
    await createSigningTokens(t, otherRing),
    await createSigningTokens(t, rsaRing),
  ];

  const all = [mine, theirs, third];
  for (const signer of all) {
    const token = await signer.sign(subject);
    for (const verifier of all.filter((one) => one !== signer)) {
      assert.throws(() => verifier.verify(token), isFailure('invalid_token'));
    }
  }
});

test('with a shared key, a token for another issuer or audience is invalid', async (t) => {
  const mine = await createSigningTokens(t, ring);
  const token = await mine.sign(subject);

  for (const changes of [{ issuer: 'other' }, { audience: 'other' }]) {
    assert.throws(() => createTokens(changes).verify(token), isFailure('invalid_token'));
  }
});

test('the public key of an RS256 key ring is not accepted as an HMAC secret', () => {
  const keys = createKeys('RS256');
  const head = { alg: 'HS256', typ: 'JWT', kid: keys.signingKey.id };
  const tokens = createTokens({ ring: keys });

  const rs256Token = forgeRs({ ...head, alg: 'RS256' }, rsa.privateKey);
  assert.equal(tokens.verify(rs256Token).userId, userId);
  for (const key of [rsaPublicPem, rsaPublicPem.trim()]) {
    const token = forge(head, claims, Buffer.from(key));
    assert.throws(() => tokens.verify(token), isFailure('invalid_token'));
  }
  // The key verifies RS256 only, although PS256 could use it.
  const ps256Token = forgeRs({ ...head, alg: 'PS256' }, rsa.privateKey);
  assert.throws(() => tokens.verify(ps256Token), isFailure('invalid_token'));
});

test('a token with any character changed is invalid', () => {
  const token = forge(header, claims);
  const tokens = createTokens();

  for (let index = 0; index < token.length; index += 1) {
    const other = token[index] === 'A' ? 'B' : 'A';
    const changed = token.slice(0, index) + other + token.slice(index + 1);
    assert.throws(() => tokens.verify(changed), isFailure('invalid_token'));
  }
});

test('verify throws only invalid_token or expired_token, for any text and any signed claims', () => {
  const tokens = createTokens();
  const anyToken = fc.oneof(
    fc.string(),
    fc.tuple(fc.json(), fc.json()).map(([head, payload]) => forge(head, payload)),
    fc.json().map((payload) => forge(header, payload)),
    fc
      .record(Object.fromEntries(Object.keys(claims).map((name) => [name, fc.jsonValue()])))
      .map((odd) => forge(header, { ...claims, ...odd })),
  );

  fc.assert(
    fc.property(anyToken, (token) => {
      assert.throws(
        () => tokens.verify(token),
        (cause) => {
          assert.ok(cause instanceof Failure);
          return ['invalid_token', 'expired_token'].includes(cause.name);
        },
      );
    }),
  );
});

const invalidOptions: readonly (readonly [string, object])[] = [
  ['no audience', { audience: '' }],
  ['no issuer', { issuer: '' }],
  ['a tolerance of type string', { clockToleranceMs: '30' }],
  ['a tolerance above 5 minutes', { clockToleranceMs: 300_001 }],
  ['a negative tolerance', { clockToleranceMs: -1 }],
  ['a lifetime of type string', { lifeMs: '3600000' }],
  ['a lifetime under a second', { lifeMs: 999 }],
  ['an infinite lifetime', { lifeMs: Number.POSITIVE_INFINITY }],
];

for (const [what, changes] of invalidOptions) {
  test(`AccessTokens rejects ${what}, which would disable a check`, () => {
    assert.throws(() => createTokens(changes), { message: /options out of range/ });
  });
}

/** Counts the tokens that were admitted, and those of them that are still counted as invalid. */
function createAdmissionCounter() {
  const counts = { admitted: 0, invalid: 0 };
  const admit = () => {
    counts.admitted += 1;
    counts.invalid += 1;
    return () => {
      counts.invalid -= 1;
    };
  };
  return { counts, admit };
}

/** Replaces the signature by another one of the same length. */
function withForgedSignature(token: string): string {
  const [head, payload, signature = ''] = token.split('.');
  const bytes = Buffer.from(signature, 'base64url');
  return `${head}.${payload}.${bytes.fill(1).toString('base64url')}`;
}

for (const algorithm of ['RS256', 'PS256', 'ES256', 'ES384', 'ES512'] as const) {
  test(`a forged ${algorithm} signature counts as an invalid token; a valid or expired token does not`, async (t) => {
    const keys = createKeys(algorithm);
    const time = { now: nowSeconds * 1000 };
    const wallClock = () => time.now;
    const issuer = await createSigningTokens(t, keys, { wallClock });
    const verifier = createTokens({ ring: keys, wallClock });
    const token = await issuer.sign(subject);
    const { counts, admit } = createAdmissionCounter();

    for (let count = 0; count < 2; count += 1)
      assert.equal(verifier.verify(token, admit).userId, userId);
    assert.deepEqual(counts, { admitted: 1, invalid: 0 });
    const forged = withForgedSignature(token);
    assert.throws(() => verifier.verify(forged, admit), isFailure('invalid_token'));
    assert.deepEqual(counts, { admitted: 2, invalid: 1 });

    time.now += 3_700_000;
    const other = createTokens({ ring: keys, wallClock });
    assert.throws(() => other.verify(token, admit), isFailure('expired_token'));
    assert.deepEqual(counts, { admitted: 3, invalid: 1 });
  });
}

test('over the limit of invalid tokens, only tokens that this process has issued are accepted', async (t) => {
  const keys = createKeys('ES512');
  const tokens = await createSigningTokens(t, keys);
  const token = await tokens.sign(subject);
  const refusal = new Failure('too_many_requests', 'too many');
  const refuse = () => {
    throw refusal;
  };

  assert.equal(tokens.verify(token, refuse).userId, userId);
  assert.throws(
    () => tokens.verify(withForgedSignature(token), refuse),
    (cause) => cause === refusal,
  );
  assert.throws(
    () => createTokens({ ring: keys }).verify(token, refuse), // Another process.
    (cause) => cause === refusal,
  );
});

test('malformed tokens, other algorithms and HMACs are not counted, because their refusal costs no public-key operation', async (t) => {
  const keys = createKeys('ES512');
  const token = await (await createSigningTokens(t, keys)).sign(subject);
  const { counts, admit } = createAdmissionCounter();
  const head = { alg: 'HS256', typ: 'JWT', kid: keys.signingKey.id };

  for (const text of ['none', token.slice(1), forge(head, claims)]) {
    const verify = () => createTokens({ ring: keys }).verify(text, admit);
    assert.throws(verify, isFailure('invalid_token'));
  }
  const forged = forge(header, claims, otherSecret);
  assert.throws(() => createTokens().verify(forged, admit), isFailure('invalid_token'));

  assert.deepEqual(counts, { admitted: 0, invalid: 0 });
});
