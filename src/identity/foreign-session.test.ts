import assert from 'node:assert/strict';
import { test } from 'node:test';
import { getForeignSessionId } from './foreign-session.js';

test('the id of a session depends on its user and on its label', () => {
  const pairs = [
    ['a', 'web'],
    ['b', 'web'],
    ['a', ''],
    ['a', 'Web'],
    ['a:web', ''],
    ['a","web', ''],
    ['a', 'ü'],
  ] as const;

  const ids = pairs.map(([userId, label]) => getForeignSessionId(userId, label));

  assert.equal(new Set(ids).size, pairs.length);
  for (const id of ids) assert.match(id, /^[0-9a-f]{32}$/);
  assert.equal(getForeignSessionId('a', 'web'), ids[0]);
});
