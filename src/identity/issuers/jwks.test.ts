import assert from 'node:assert/strict';
import { generateKeyPairSync, type JsonWebKey, type KeyObject } from 'node:crypto';
import { test } from 'node:test';
import { jwksKeysMax, parseJwks } from './jwks.js';

const toJwk = (key: KeyObject): JsonWebKey => key.export({ format: 'jwk' });
const ecPair = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const ec = toJwk(ecPair.publicKey);
const rsa = toJwk(generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey);
const shortRsa = toJwk(generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey);
const ed25519 = toJwk(generateKeyPairSync('ed25519').publicKey);
const secret = { kty: 'oct', k: Buffer.alloc(64, 7).toString('base64url') };

const parse = (keys: unknown, algorithms = ['ES256']) =>
  parseJwks(JSON.stringify({ keys }), algorithms);

const unusableText = [
  ['HTML', '<!doctype html><title>Sign in</title>', /^not JSON$/],
  ['an empty text', '', /^not JSON$/],
  ['a text with two values', '{"keys":[]}{}', /^not JSON$/],
  ['deep nesting', '['.repeat(200_000), /^not JSON$/],
  ['null', 'null', /^not a JWKS$/],
  ['a list', JSON.stringify([ec]), /^not a JWKS$/],
  ['a single key', JSON.stringify(ec), /^not a JWKS$/],
  ['keys that are an object', JSON.stringify({ keys: { 0: ec } }), /^not a JWKS$/],
  ['no key', '{"keys":[]}', /^no usable key$/],
] as const;

for (const [what, text, problem] of unusableText) {
  test(`${what} is refused as a JWKS`, () => {
    assert.throws(() => parseJwks(text, ['ES256']), { message: problem });
  });
}

const unusableKeys: readonly [string, unknown][] = [
  ['an RSA key for ES256', rsa],
  ['a key on another curve', { ...ec, crv: 'P-384' }],
  ['a point that is not on the curve', { ...ec, x: ec.y, y: ec.x }],
  ['a key without a point', { kty: 'EC', crv: 'P-256' }],
  ['a key without kty', { ...ec, kty: undefined }],
  ['an unknown kty', { ...ec, kty: 'XX' }],
  ['a secret', secret],
  ['a private key', toJwk(ecPair.privateKey)],
  ['an encryption key', { ...ec, use: 'enc' }],
  ['a key for other operations', { ...ec, key_ops: ['encrypt'] }],
  ['operations that are no list', { ...ec, key_ops: 'verify' }],
  ['a key for another algorithm', { ...ec, alg: 'ES384' }],
  ['an alg that is no text', { ...ec, alg: 7 }],
  ['null', null],
  ['a text', 'key'],
  ['a list', [ec]],
];

for (const [what, key] of unusableKeys) {
  test(`${what} in a JWKS is ignored, and its other keys are used`, () => {
    assert.throws(() => parse([key]), { message: 'no usable key' });
    assert.deepEqual(
      parse([key, { ...ec, kid: 'good' }]).map(({ id }) => id),
      ['good'],
    );
  });
}

test('an RSA key of less than 2048 bits is ignored', () => {
  assert.throws(() => parse([shortRsa], ['RS256']), { message: 'no usable key' });
});

test('a key is used for the algorithms of the issuer that fit it', () => {
  const algorithms = ['RS256', 'PS512', 'ES256', 'EdDSA', 'Ed25519'];

  const keys = parse([rsa, { ...rsa, alg: 'PS512' }, ec, ed25519], algorithms);

  assert.deepEqual(
    keys.map((key) => key.algorithms),
    [['RS256', 'PS512'], ['PS512'], ['ES256'], ['EdDSA', 'Ed25519']],
  );
});

test(`a JWKS may have ${jwksKeysMax} keys`, () => {
  const keys = Array.from({ length: jwksKeysMax }, () => ec);

  assert.equal(parse(keys).length, jwksKeysMax);
  assert.throws(() => parse([...keys, ec]), { message: 'more than 100 keys' });
});
