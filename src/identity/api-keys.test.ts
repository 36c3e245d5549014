import assert from 'node:assert/strict';
import { testOnDialects } from '../../test/support/databases/dialects.js';
import { databaseFor } from '../../test/support/databases/embedded.js';
import { collectingLog } from '../../test/support/recording/collecting-log.js';
import { until } from '../../test/support/until.js';
import { sql } from '../db/database.js';
import { controlEntryAppender } from '../event-log/open.js';
import { ApiKeys } from './api-keys.js';

const test = await testOnDialects('API keys');

async function keysFor(t: Parameters<typeof databaseFor>[0]) {
  const db = await databaseFor(t);
  const time = { now: 1_700_000_000_000 };
  const lines: Record<string, unknown>[] = [];
  const keys = new ApiKeys({
    db,
    log: collectingLog(lines),
    wallClock: () => time.now,
    appendControlEntries: controlEntryAppender(db, () => time.now),
  });
  return { db, time, lines, keys };
}

test('create returns a key that verify accepts and that is not stored', async (t) => {
  const { keys, db } = await keysFor(t);

  const { key, ...made } = await keys.create({ name: 'billing', scopes: ['publish'] });

  assert.match(key, /^hk_[0-9a-f]{16}_[\w-]{43}$/);
  assert.deepEqual(await keys.verify(key), made);
  const stored = JSON.stringify(await db.query(sql`select * from api_keys`));
  assert.equal(stored.includes(key.slice(20)), false);
});

test('a key is rejected as soon as it is revoked, by name or by id', async (t) => {
  const { keys } = await keysFor(t);
  const one = await keys.create({ name: 'one', scopes: ['publish'] });
  const two = await keys.create({ name: 'two', scopes: ['publish'] });

  assert.equal(await keys.revoke('one'), true);
  assert.equal(await keys.revoke(two.id), true);
  assert.equal(await keys.revoke('one'), false);
  assert.equal(await keys.revoke('three'), false);
  assert.equal(await keys.revoke('ключ'), false); // The ids are stored in ASCII.

  assert.equal(await keys.verify(one.key), undefined);
  assert.equal(await keys.verify(two.key), undefined);
});

test('an unknown or malformed key is rejected', async (t) => {
  const { keys } = await keysFor(t);
  const { key, id } = await keys.create({ name: 'one', scopes: ['publish'] });
  const otherLastChar = key.endsWith('A') ? 'B' : 'A';

  const invalidKeys = [
    '',
    'hk_',
    id,
    key.slice(0, -1),
    `${key}A`,
    `${key}\n`,
    ` ${key}`,
    key.toUpperCase(),
    `${key.slice(0, -1)}${otherLastChar}`,
    `hk_${'0'.repeat(16)}_${key.slice(20)}`,
    `hk_${id}_${'A'.repeat(43)}`,
    `hk_' or 1=1 --_${key.slice(20)}`,
    'x'.repeat(100_000),
  ];

  for (const text of invalidKeys)
    assert.equal(await keys.verify(text), undefined, text.slice(0, 80));
  assert.ok(await keys.verify(key));
});

const invalidOptions = [
  ['an empty name', { name: '', scopes: ['publish'] }],
  ['an overlong name', { name: 'x'.repeat(65), scopes: ['publish'] }],
  ['a name with a space', { name: 'a b', scopes: ['publish'] }],
  ['no scope', { name: 'a', scopes: [] }],
  ['an unknown scope', { name: 'a', scopes: ['publish', 'admin'] }],
] as const;

for (const [what, options] of invalidOptions) {
  test(`a key with ${what} is not created`, async (t) => {
    const { keys } = await keysFor(t);

    await assert.rejects(keys.create(options), { name: 'invalid_request' });

    assert.deepEqual(await keys.list(), []);
  });
}

test('the name of a key is unique', async (t) => {
  const { keys } = await keysFor(t);
  await keys.create({ name: 'one', scopes: ['publish', 'publish'] });

  await assert.rejects(keys.create({ name: 'one', scopes: ['publish'] }), { name: 'conflict' });

  assert.deepEqual((await keys.list())[0]?.scopes, ['publish']);
});

test('the last use of a key is stored once a minute', async (t) => {
  const { keys, time } = await keysFor(t);
  const { key } = await keys.create({ name: 'one', scopes: ['publish'] });
  const lastUse = async () => (await keys.list())[0]?.lastUsedAt;
  const start = time.now;
  assert.equal(await lastUse(), undefined);

  await keys.verify(key);
  await until(async () => (await lastUse()) !== undefined);
  time.now = start + 59_999;
  await keys.verify(key);
  time.now = start + 60_000;
  await keys.verify(key);
  await until(async () => (await lastUse()) !== start);

  assert.equal(await lastUse(), start + 60_000);
});
