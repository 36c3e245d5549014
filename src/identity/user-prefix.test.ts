import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assertKeyAllowsUser } from './user-prefix.js';

test('a key with a user prefix can name only user ids that begin with this prefix, in the same case', () => {
  const key = { userPrefix: 'shop:' };

  for (const userId of ['shop:', 'shop:1', 'shop:shop:1']) assertKeyAllowsUser(key, userId, 'user');

  for (const userId of ['', '1', 'shop', 'Shop:1', 'ashop:1', 'shop;1']) {
    assert.throws(() => assertKeyAllowsUser(key, userId, 'user'), {
      name: 'user_not_allowed',
      status: 403,
      info: { field: 'user', userPrefix: 'shop:' },
    });
  }
});

test('a key without a user prefix, or with an empty prefix, can name every user', () => {
  for (const userPrefix of [undefined, ''])
    for (const userId of ['', '1', 'shop:1']) assertKeyAllowsUser({ userPrefix }, userId, 'user');
});
