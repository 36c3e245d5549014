import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parsePersonalName, parseUsername, toUsernameKey } from './username.js';

const spellings = [
  ['ada', ' Ada '],
  ['josé', 'Jose\u0301'],
  ['ada', '\uff21\uff24\uff21'],
  ['a b', 'A\u00a0B'],
  ['strasse', 'STRASSE'],
  ['hello', '\u210cello'], // Its normal form is an upper-case letter.
] as const;

for (const [key, spelling] of spellings) {
  test(`${JSON.stringify(spelling)} has the username key ${key}`, () => {
    assert.equal(toUsernameKey(spelling), key);
  });
}

const invalidUsernames = [
  '',
  ' ',
  '\u3000',
  'a\u0000b',
  'a\nb',
  '\u007f',
  '\u0085',
  '\ud800',
  'a\udc00',
];

for (const username of [...invalidUsernames, 'x'.repeat(191), '\ufdfa'.repeat(11)]) {
  test(`${JSON.stringify(username).slice(0, 30)} is an invalid username`, () => {
    assert.equal(toUsernameKey(username), undefined);
    assert.throws(() => parseUsername(username), { name: 'invalid_request' });
  });
}

test('a username has at most 190 characters', () => {
  assert.deepEqual(parseUsername('X'.repeat(190)), {
    username: 'X'.repeat(190),
    key: 'x'.repeat(190),
  });
});

test('a value that is not a string is rejected as a name', () => {
  for (const given of [undefined, null, 7, ['ada'], {}]) {
    assert.throws(() => parseUsername(given), { name: 'invalid_request' });
    assert.throws(() => parsePersonalName(given, 'firstName'), { name: 'invalid_request' });
  }
  assert.equal(parsePersonalName('', 'lastName'), '');
});

test('toUsernameKey never throws, and keys are trimmed and 1 to 190 characters', () => {
  const text = fc.string({ unit: 'binary', maxLength: 200 });
  fc.assert(
    fc.property(text, (given) => {
      const key = toUsernameKey(given);
      return key === undefined || (key === key.trim() && key.length >= 1 && key.length <= 190);
    }),
  );
});
