import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseDigest } from './argon2-digest.js';

const salt = Buffer.alloc(16, 1).toString('base64').replace(/=+$/, '');
const tag = Buffer.alloc(32, 2).toString('base64').replace(/=+$/, '');
const digest = (parameters: string, saltAndTag = `${salt}$${tag}`) =>
  `$argon2id$v=19$${parameters}$${saltAndTag}`;

test('a digest is parsed into its cost and lengths', () => {
  assert.deepEqual(parseDigest(digest('m=19456,t=2,p=1')), {
    cost: { memoryKib: 19_456, passes: 2, lanes: 1 },
    saltBytes: 16,
    tagBytes: 32,
  });
});

for (const parameters of ['m=7168,t=1,p=1', 'm=262144,t=10,p=8']) {
  test(`a cost of ${parameters} is within bounds`, () => {
    assert.ok(parseDigest(digest(parameters)));
  });
}

const invalidDigests = [
  ['an empty text', ''],
  ['plain text', 'password'],
  ['too little memory', digest('m=7167,t=1,p=1')],
  ['too much memory', digest('m=262145,t=1,p=1')],
  ['two terabytes', digest('m=2147483648,t=1,p=1')],
  ['too many passes', digest('m=19456,t=11,p=1')],
  ['no passes', digest('m=19456,t=0,p=1')],
  ['too many lanes', digest('m=19456,t=2,p=9')],
  ['no lanes', digest('m=19456,t=2,p=0')],
  ['a negative cost', digest('m=-19456,t=2,p=1')],
  ['a cost with leading zeros', digest('m=019456,t=2,p=1')],
  ['a cost in hex', digest('m=0x4c00,t=2,p=1')],
  ['parameters in another order', digest('m=19456,p=1,t=2')],
  ['argon2i', digest('m=19456,t=2,p=1').replace('argon2id', 'argon2i')],
  ['argon2d', digest('m=19456,t=2,p=1').replace('argon2id', 'argon2d')],
  ['an old version', digest('m=19456,t=2,p=1').replace('v=19', 'v=16')],
  ['bcrypt', '$2b$10$abcdefghijklmnopqrstuuO1tLyHbN4rXv1eJ7qJ8CjB6Xc1m0kWe'],
  ['no tag', digest('m=19456,t=2,p=1', salt)],
  ['a short tag', digest('m=19456,t=2,p=1', `${salt}$${tag.slice(0, 20)}`)],
  ['an overlong tag', digest('m=19456,t=2,p=1', `${salt}$${tag.repeat(3)}`)],
  ['a tag of invalid base64 length', digest('m=19456,t=2,p=1', `${salt}$${tag.slice(0, 41)}`)],
  ['a padded tag', digest('m=19456,t=2,p=1', `${salt}$${tag}=`)],
  ['trailing text', `${digest('m=19456,t=2,p=1')}\n`],
  ['leading text', ` ${digest('m=19456,t=2,p=1')}`],
] as const;

for (const [what, text] of invalidDigests) {
  test(`parseDigest rejects ${what}`, () => {
    assert.equal(parseDigest(text), undefined);
  });
}

test('parseDigest never throws', () => {
  const parts = fc.constantFrom('$', 'argon2id', 'v=19', 'm=', 't=', 'p=', ',', '19456', '2', salt);

  fc.assert(
    fc.property(fc.array(fc.oneof(parts, fc.string())), (texts) => {
      parseDigest(texts.join(''));
    }),
  );
});
