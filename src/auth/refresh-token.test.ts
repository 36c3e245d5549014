import assert from 'node:assert/strict';
import { createSecretKey } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  formatRefreshToken,
  hashesEqual,
  hashVerifier,
  openSuccessor,
  parseRefreshToken,
  RefreshTokens,
  readGeneration,
  sealSuccessor,
} from './refresh-token.js';

const secret = Buffer.alloc(32, 7);
const tokens = new RefreshTokens({ secrets: [secret] });

test('a token is 172 characters of base64 and parses to the same value', () => {
  const token = tokens.mint();

  const text = formatRefreshToken(token);

  assert.match(text, /^[A-Za-z0-9+/]{171}=$/);
  assert.deepEqual(parseRefreshToken(text), token);
  assert.equal(tokens.verifyMac(token), true);
});

test('a successor has the selector of its parent and a new verifier', () => {
  const token = tokens.mint();

  const successor = tokens.mint(token.selector);

  assert.equal(successor.selector, token.selector);
  assert.notDeepEqual(successor.verifier, token.verifier);
});

test('a token contains its generation, which is 0 for the first one of a session', () => {
  const first = tokens.mint();
  const later = tokens.mint(first.selector, 70_000);

  assert.equal(readGeneration(first), 0);
  assert.equal(readGeneration(parseRefreshToken(formatRefreshToken(later))), 70_000);
  assert.equal(tokens.verifyMac(later), true);
});

const validText = formatRefreshToken(tokens.mint());
const otherLastDigit = String.fromCharCode(validText.charCodeAt(170) + 1);

const notTokens: readonly (readonly [string, unknown])[] = [
  ['undefined', undefined],
  ['null', null],
  ['a number', 7],
  ['an array with a token', [validText]],
  ['an object', { token: validText }],
  ['an empty text', ''],
  ['a text one character short', validText.slice(1)],
  ['125 bytes', Buffer.alloc(125, 7).toString('base64')],
  ['131 bytes', Buffer.alloc(131, 7).toString('base64')],
  ['a text one character too long', `A${validText}`],
  ['a token without padding', validText.slice(0, -1)],
  ['a token with two padding characters', `${validText.slice(0, -2)}==`],
  ['a token with a trailing line break', `${validText}\n`],
  ['a token with a leading space', ` ${validText.slice(1)}`],
  ['the alphabet of base64url', `-_${validText.slice(2)}`],
  [
    'a token with unused bits set in the last digit',
    `${validText.slice(0, 170)}${otherLastDigit}=`,
  ],
  ['a token with a non-ASCII character', `é${validText.slice(1)}`],
];

for (const [what, text] of notTokens) {
  test(`parseRefreshToken rejects ${what}`, () => {
    assert.throws(() => parseRefreshToken(text), { name: 'invalid_token' });
  });
}

test('parseRefreshToken accepts only canonical texts', () => {
  const text = fc.string({ minLength: 168, maxLength: 176 });
  fc.assert(
    fc.property(text, (given) => {
      try {
        return formatRefreshToken(parseRefreshToken(given)) === given;
      } catch (cause) {
        return cause instanceof Error && cause.name === 'invalid_token';
      }
    }),
  );
});

test('the MAC of a token with any bit flipped is invalid', () => {
  const token = tokens.mint();
  const bytes = Buffer.from(formatRefreshToken(token), 'base64');
  for (let bit = 0; bit < bytes.length * 8; bit += 1) {
    const damaged = Buffer.from(bytes);
    damaged[bit >> 3] = (damaged[bit >> 3] ?? 0) ^ (1 << (bit & 7));

    assert.equal(
      tokens.verifyMac(parseRefreshToken(damaged.toString('base64'))),
      false,
      `bit ${bit}`,
    );
  }
});

test('the MAC of a token minted with a previous secret is valid while the secret is listed', () => {
  const old = tokens.mint();
  const newSecret = createSecretKey(Buffer.alloc(32, 8));

  assert.equal(new RefreshTokens({ secrets: [newSecret, secret] }).verifyMac(old), true);
  assert.equal(new RefreshTokens({ secrets: [newSecret] }).verifyMac(old), false);
  assert.throws(() => new RefreshTokens({ secrets: [] }));
});

test('a sealed successor can be opened only with its parent', () => {
  const parent = tokens.mint();
  const successor = tokens.mint(parent.selector);

  const sealed = sealSuccessor(successor, parent);

  assert.equal(sealed.length, 188);
  assert.deepEqual(openSuccessor(sealed, parent), successor);
  assert.throws(() => openSuccessor(sealed, successor));
  assert.throws(() => openSuccessor(`AAAA${sealed.slice(4)}`, parent));
  assert.throws(() => openSuccessor(sealed.slice(0, -4), parent));
});

test('hashes are compared over their whole length', () => {
  const one = hashVerifier(tokens.mint().verifier);

  assert.equal(one.length, 64);
  assert.equal(hashesEqual(one, one), true);
  assert.equal(hashesEqual(one, hashVerifier(tokens.mint().verifier)), false);
  assert.equal(hashesEqual(one, null), false);
  assert.equal(hashesEqual(one, one.slice(1)), false);
});
