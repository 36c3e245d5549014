import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { findWeakness } from './secret-strength.js';

const randomText = 'Zk3vT9wLq0XhB7nRs5YcJ2mPd8FgUa4EoIiMxN6tQyV1KbWzCrGuHjSlDpOfAe_-';

for (const [algorithm, bytes] of [
  ['HS256', 32],
  ['HS384', 48],
  ['HS512', 64],
  ['RS256', 32],
  ['ES512', 32],
] as const) {
  test(`a secret for ${algorithm} needs at least ${bytes} random bytes`, () => {
    assert.equal(findWeakness(algorithm, Buffer.from(randomText.slice(0, bytes))), undefined);
    assert.match(
      findWeakness(algorithm, Buffer.from(randomText.slice(0, bytes - 1))) ?? '',
      new RegExp(`must have ${bytes} bytes or more for ${algorithm}`),
    );
  });
}

const weakSecrets = [
  ['an empty text', '', /32 bytes or more/],
  ['a public key', `-----BEGIN PUBLIC KEY-----\n${randomText}`, /not a PEM file/],
  [
    'a public key after a line break',
    `\n-----BEGIN PUBLIC KEY-----\n${randomText}`,
    /not a PEM file/,
  ],
  ['one repeated byte', 'x'.repeat(64), /fewer than 10 different bytes/],
  ['nine different bytes', 'abcdefghi'.repeat(8), /fewer than 10 different bytes/],
  [
    'the example secret of a JWT debugger',
    'a-string-secret-at-least-256-bits-long',
    /a placeholder/,
  ],
  [
    'the example secret of a platform',
    'super-secret-jwt-token-with-at-least-32-characters-long',
    /a placeholder/,
  ],
  ['a placeholder', 'PLEASE-CHANGE-ME-BEFORE-YOU-GO-LIVE-0123', /a placeholder/],
  ['an instruction to the reader', 'your-256-bit-key-goes-here-and-nowhere-else', /a placeholder/],
  ['a sequence of digits', '12345678901234567890123456789012345', /a placeholder/],
] as const;

for (const [what, text, weakness] of weakSecrets) {
  test(`${what} is rejected as a secret`, () => {
    assert.match(findWeakness('HS256', Buffer.from(text)) ?? 'no weakness', weakness);
  });
}

test('random bytes are accepted as a secret, raw or encoded', () => {
  for (let count = 0; count < 1000; count += 1) {
    const bytes = createHash('sha384').update(String(count)).digest(); // 48 bytes.
    assert.equal(findWeakness('HS384', bytes), undefined);
    for (const encoding of ['hex', 'base64', 'base64url'] as const) {
      assert.equal(findWeakness('HS384', Buffer.from(bytes.toString(encoding))), undefined);
    }
  }
});
