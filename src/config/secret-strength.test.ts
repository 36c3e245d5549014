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
  ['a UUID', 'c2d29867-3d0b-4497-9191-18a9d8ee7830', /about 128 bits .* 160 are required/],
  ['a UUID without dashes', 'c2d298673d0bd497a19118a9d8ee7830', /about 128 bits/],
  ['a sentence', 'The quick brown fox jumps over the lazy dog and runs away', /about \d+ bits/],
  [
    'a sentence with digits',
    'I have a cat and a dog at my house in the old town, 42 of us',
    /bits/,
  ],
  ['a sentence without spaces', 'TheQuickBrownFoxJumpsOverTheLazyDog', /about 70 bits/],
  ['a sentence in Cyrillic', 'съешь ещё этих мягких французских булок', /about \d+ bits/],
  ['a repeated text', 'Zk3vT9wLq0Xh'.repeat(4), /about 10\d bits .*repetitions/],
  ['a number', '47110815123450987612345098765432109871', /about 109 bits/],
] as const;

for (const [what, text, weakness] of weakSecrets) {
  test(`${what} is rejected as a secret`, () => {
    assert.match(findWeakness('HS256', Buffer.from(text)) ?? 'no weakness', weakness);
  });
}

test('the estimate of a weak secret is reported with the minimum and with a way to create a better one', () => {
  assert.equal(
    findWeakness('HS256', Buffer.from('c2d29867-3d0b-4497-9191-18a9d8ee7830')),
    'must be random: it has about 128 bits (estimated from its length, kinds of characters, words and repetitions), ' +
      'and 160 are required; openssl rand -base64 32 prints a better one',
  );
});

test('a secret needs five bits for each required byte', () => {
  const hex = createHash('sha512').update('any').digest('hex');

  for (const [algorithm, digits] of [
    ['HS256', 40],
    ['HS384', 60],
    ['HS512', 80],
  ] as const) {
    const accepted = Buffer.from(hex.slice(0, digits));
    const refused = accepted.subarray(1);
    assert.equal(findWeakness(algorithm, accepted), undefined);
    assert.match(findWeakness(algorithm, refused) ?? '', /bits/);
  }
});

const lettersAndDigits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';

for (const [what, alphabet] of [
  ['letters and digits', lettersAndDigits],
  ['letters, digits and symbols', `${lettersAndDigits}!@#$%^&*()-_=+[]{};:,.?`],
  ['lower-case letters and digits', lettersAndDigits.slice(26)],
] as const) {
  test(`32 random ${what} are accepted as a secret`, () => {
    for (let count = 0; count < 1000; count += 1) {
      const bytes = createHash('sha256').update(String(count)).digest();
      const text = Array.from(bytes, (byte) => alphabet[byte % alphabet.length]).join('');
      assert.equal(findWeakness('HS256', Buffer.from(text)), undefined, text);
    }
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
