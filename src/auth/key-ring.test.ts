import assert from 'node:assert/strict';
import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { test } from 'node:test';
import { createKeyRing, type KeyRingOptions } from './key-ring.js';

/** Random enough for the check for weak secrets. */
const secrets = [1, 2, 3, 4, 5].map((start) =>
  Buffer.from(Array.from({ length: 64 }, (_, index) => (start * 50 + index * 7) % 256)),
);
const [secret = Buffer.alloc(0), ...olderSecrets] = secrets;

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const smallRsa = generateKeyPairSync('rsa', { modulusLength: 1024 });
const [p256, otherP256] = [1, 2].map(() => generateKeyPairSync('ec', { namedCurve: 'P-256' }));
const p384 = generateKeyPairSync('ec', { namedCurve: 'P-384' });
assert.ok(p256 && otherP256);

const privatePem = ({ privateKey }: { privateKey: KeyObject }) =>
  privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
const publicPem = ({ publicKey }: { publicKey: KeyObject }) =>
  publicKey.export({ type: 'spki', format: 'pem' }).toString();

test('a ring of secrets finds the current key without an id, and each key by its id', () => {
  const ring = createKeyRing({
    algorithm: 'HS256',
    secret,
    previousSecrets: olderSecrets.slice(0, 3),
  });

  assert.equal(ring.find(undefined), ring.find(ring.signingKey.id));
  assert.match(ring.signingKey.id, /^[\w-]{10}$/);
  for (const older of olderSecrets.slice(0, 3)) {
    const { id, key } = createKeyRing({ algorithm: 'HS256', secret: older }).signingKey;
    assert.ok(ring.find(id)?.key.equals(key));
  }
  assert.equal(ring.jwks, undefined);
});

test('a ring finds no key for an unknown id', () => {
  const ring = createKeyRing({ algorithm: 'HS256', secret });

  const ids = [
    '',
    'other',
    ring.signingKey.id.toLowerCase(),
    `${ring.signingKey.id} `,
    '__proto__',
  ];
  for (const id of [...ids, null, 7, {}, [ring.signingKey.id], '../../dev/null', "' or 1=1--"]) {
    assert.equal(ring.find(id), undefined);
  }
});

test('a ring of key pairs publishes only its public keys', () => {
  const ring = createKeyRing({
    algorithm: 'ES256',
    secret, // Used for other tokens; the ring ignores it.
    privateKeyPem: privatePem(p256),
    previousPublicKeysPem: `older:\n${publicPem(otherP256)}`,
  });

  const [current, previous] = ring.jwks?.keys ?? [];
  const { id } = ring.signingKey;
  const { x, y } = p256.publicKey.export({ format: 'jwk' });
  const commonMembers = { kty: 'EC', crv: 'P-256', alg: 'ES256', use: 'sig' };
  assert.deepEqual(current, { ...commonMembers, kid: id, x, y });
  assert.equal(ring.jwks?.keys.length, 2);
  const previousKey = ring.find(previous?.['kid'])?.key;
  assert.ok(previousKey?.equals(createPublicKey(otherP256.privateKey)));
  assert.doesNotMatch(JSON.stringify(ring.jwks), /"d"/);
});

test('the id of a public key is its thumbprint', () => {
  // Spec: RFC 7638 §3.1, the example.
  const n =
    '0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECP' +
    'ebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY' +
    '368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0f' +
    'M4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw';
  const example = createPublicKey({ key: { kty: 'RSA', n, e: 'AQAB' }, format: 'jwk' });

  const ring = createKeyRing({
    algorithm: 'RS256',
    privateKeyPem: privatePem(rsa),
    previousPublicKeysPem: publicPem({ publicKey: example }),
  });

  assert.ok(ring.find('NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs')?.key.equals(example));
});

const refusals: readonly (readonly [string, KeyRingOptions, RegExp])[] = [
  ['HS without a secret', { algorithm: 'HS256' }, /HS256 needs a secret/],
  ['a short secret', { algorithm: 'HS512', secret: secret.subarray(1) }, /the secret must have 64/],
  [
    'a weak previous secret',
    { algorithm: 'HS256', secret, previousSecrets: [Buffer.alloc(32)] },
    /a previous secret must be random/,
  ],
  [
    'four previous secrets',
    { algorithm: 'HS256', secret, previousSecrets: olderSecrets },
    /3 previous keys at most/,
  ],
  [
    'the same secret as current and previous',
    { algorithm: 'HS256', secret, previousSecrets: [Buffer.from(secret)] },
    /the same key is listed twice/,
  ],
  [
    'HS with a private key',
    { algorithm: 'HS256', secret, privateKeyPem: privatePem(rsa) },
    /takes no private or public keys/,
  ],
  [
    'HS with previous public keys',
    { algorithm: 'HS256', secret, previousPublicKeysPem: publicPem(rsa) },
    /takes no private or public keys/,
  ],
  [
    'a public key as the secret',
    { algorithm: 'HS256', secret: Buffer.from(publicPem(rsa)) },
    /not a PEM file/,
  ],
  ['RS without a private key', { algorithm: 'RS256', secret }, /RS256 needs a private key/],
  [
    'a public key in place of the private one',
    { algorithm: 'RS256', privateKeyPem: publicPem(rsa) },
    /not an unencrypted PEM key/,
  ],
  [
    'a private key that is not PEM',
    { algorithm: 'PS256', privateKeyPem: 'key' },
    /not an unencrypted PEM key/,
  ],
  [
    'an RSA key of 1024 bits',
    { algorithm: 'RS256', privateKeyPem: privatePem(smallRsa) },
    /RS256 needs an RSA key of 2048 bits or more/,
  ],
  ['RS with an EC key', { algorithm: 'PS512', privateKeyPem: privatePem(p256) }, /an RSA key/],
  ['ES with an RSA key', { algorithm: 'ES256', privateKeyPem: privatePem(rsa) }, /an EC key on/],
  [
    'an EC key on another curve',
    { algorithm: 'ES256', privateKeyPem: privatePem(p384) },
    /ES256 needs an EC key on prime256v1/,
  ],
  [
    'a previous public key on another curve',
    {
      algorithm: 'ES256',
      privateKeyPem: privatePem(p256),
      previousPublicKeysPem: publicPem(p384),
    },
    /ES256 needs an EC key on prime256v1/,
  ],
  [
    'a private key among the public ones',
    {
      algorithm: 'ES256',
      privateKeyPem: privatePem(p256),
      previousPublicKeysPem: publicPem(otherP256) + privatePem(otherP256),
    },
    /"BEGIN PUBLIC KEY" blocks/,
  ],
  [
    'previous public keys that are not PEM',
    { algorithm: 'ES256', privateKeyPem: privatePem(p256), previousPublicKeysPem: 'none' },
    /"BEGIN PUBLIC KEY" blocks/,
  ],
];

for (const [what, options, message] of refusals) {
  test(`createKeyRing rejects ${what}`, () => {
    assert.throws(() => createKeyRing(options), { message });
  });
}
