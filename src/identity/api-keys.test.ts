import assert from 'node:assert/strict';
import { testOnDialects } from '../../test/support/databases/dialects.js';
import { databaseFor } from '../../test/support/databases/test-database.js';
import { collectingLog } from '../../test/support/recording/collecting-log.js';
import { withStatementLog } from '../../test/support/recording/statement-hooks.js';
import { until } from '../../test/support/until.js';
import { type Database, sql } from '../db/database.js';
import { controlEntryAppender } from '../event-log/open.js';
import { type AdmitUnverified, ApiKeys } from './api-keys.js';

const test = await testOnDialects('API keys');

/** Start time of the clock of `createKeys`, epoch ms. */
const now = 1_700_000_000_000;

async function openKeys(t: Parameters<typeof databaseFor>[0]) {
  const statements: string[] = [];
  const db = withStatementLog(await databaseFor(t), statements);
  return { db, statements, ...createKeys(db) };
}

function createKeys(db: Database) {
  const time = { now };
  const lines: Record<string, unknown>[] = [];
  const keys = new ApiKeys({
    db,
    log: collectingLog(lines),
    wallClock: () => time.now,
    appendControlEntries: controlEntryAppender(db, () => time.now),
  });
  return { time, lines, keys };
}

/** Counts the keys that were admitted, and the admitted keys that still count as invalid. */
function createAdmission() {
  const counts = { admitted: 0, invalid: 0 };
  const admit: AdmitUnverified = () => {
    counts.admitted += 1;
    counts.invalid += 1;
    return () => {
      counts.invalid -= 1;
    };
  };
  return { counts, admit };
}

const unknownKey = `hk_${'0'.repeat(16)}_${'A'.repeat(43)}`;

test('create returns a key that verify accepts and that is not stored', async (t) => {
  const { keys, db } = await openKeys(t);

  const { key, ...made } = await keys.create({ name: 'billing', scopes: ['publish'] });

  assert.match(key, /^hk_[0-9a-f]{16}_[\w-]{43}$/);
  assert.deepEqual(await keys.verify(key), { ...made, headSeq: 0 });
  const stored = JSON.stringify(await db.query(sql`select * from api_keys`));
  assert.equal(stored.includes(key.slice(20)), false);
});

test('a key is rejected as soon as it is revoked, by name or by id', async (t) => {
  const { keys } = await openKeys(t);
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
  const { keys } = await openKeys(t);
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

// [description, options that differ from a valid key, field in the failure]
const invalidKeys = [
  ['an empty name', { name: '' }, 'name'],
  ['an overlong name', { name: 'x'.repeat(65) }, 'name'],
  ['a name with a space', { name: 'a b' }, 'name'],
  ['no scope', { scopes: [] }, 'scopes'],
  ['an unknown scope', { scopes: ['publish', 'admin'] }, 'scopes'],
  ['the scope tickets and no user prefix', { scopes: ['publish', 'tickets'] }, 'userPrefix'],
] as const;

for (const [what, options, field] of invalidKeys) {
  test(`a key with ${what} is not created`, async (t) => {
    const { keys } = await openKeys(t);

    await assert.rejects(keys.create({ name: 'a', scopes: ['publish'], ...options }), {
      name: 'invalid_request',
      info: { field },
    });

    assert.deepEqual(await keys.list(), []);
  });
}

function createTopics(count: number, length = 1): string[] {
  return Array.from({ length: count }, (_, index) => `${index}`.padStart(length, 'x'));
}

/** Returns 32 topics of this many bytes as JSON, which must be about 4 KiB. */
function createBytes(bytes: number): string[] {
  const topics = createTopics(31, 126);
  return [...topics, 'y'.repeat(bytes - JSON.stringify([...topics, '']).length)];
}

// [description, limit, its name]
const invalidLimits = [
  ['a user prefix of 256 characters', { userPrefix: 'x'.repeat(256) }, 'userPrefix'],
  ['a user prefix with a space', { userPrefix: 'shop :' }, 'userPrefix'],
  ['a user prefix with a comma', { userPrefix: 'shop,' }, 'userPrefix'],
  ['a user prefix with a quote', { userPrefix: 'shop"' }, 'userPrefix'],
  ['a user prefix with a backslash', { userPrefix: 'shop\\' }, 'userPrefix'],
  ['a user prefix with an asterisk', { userPrefix: 'shop:*' }, 'userPrefix'],
  ['a user prefix that is not ASCII', { userPrefix: 'магазин:' }, 'userPrefix'],
  ['an empty list of topics', { topics: [] }, 'topics'],
  ['a list of 101 topics', { topics: createTopics(101) }, 'topics'],
  ['a list of topics of 4097 bytes', { topics: createBytes(4097) }, 'topics'],
  ['an invalid topic', { topics: ['a', 'b c'] }, 'topics'],
  ['a prefix of topics without a separator', { topics: ['a*'] }, 'topics'],
  ['a time of expiry that is now', { expiresAt: now }, 'expiresAt'],
  ['a time of expiry that is not whole', { expiresAt: now + 1.5 }, 'expiresAt'],
  ['a time of expiry beyond all dates', { expiresAt: 8.64e15 + 1 }, 'expiresAt'],
  ['a rate of 0', { rate: '0/1000' }, 'rate'],
  ['a rate without a period', { rate: '100' }, 'rate'],
] as const;

for (const [what, limit, field] of invalidLimits) {
  test(`${what} is refused when a key is created or changed`, async (t) => {
    const { keys } = await openKeys(t);
    const refusal = { name: 'invalid_request', info: { field } };

    const creating = keys.create({ name: 'a', scopes: ['publish'], ...limit });
    await assert.rejects(creating, refusal);
    assert.deepEqual(await keys.list(), []);
    await keys.create({ name: 'a', scopes: ['publish'] });
    const before = await keys.list();

    await assert.rejects(keys.change('a', limit), refusal);
    await assert.rejects(keys.change('a', { rate: '1/1', ...limit }), refusal);
    await assert.rejects(keys.change('a', {}), { name: 'invalid_request' });
    assert.deepEqual(await keys.list(), before);
  });
}

const widestLimits = [
  { userPrefix: '', topics: ['*'], expiresAt: now + 1, rate: '1/1' },
  { userPrefix: 'y'.repeat(254), topics: createTopics(100), expiresAt: now + 1, rate: '2/2' },
  {
    userPrefix: 'x'.repeat(255),
    topics: createBytes(4096),
    expiresAt: 8.64e15,
    rate: '999999999/999999999',
  },
];

for (const limits of widestLimits) {
  test(`a key can have a user prefix of ${limits.userPrefix.length} characters, and the limits ${limits.rate}`, async (t) => {
    const { keys } = await openKeys(t);
    const options = {
      name: 'one',
      scopes: ['tickets', 'streams', 'disconnect', 'topics'],
      ...limits,
    };

    const { key, ...made } = await keys.create(options);

    const [count, perMs] = limits.rate.split('/').map(Number);
    const { userPrefix, topics, expiresAt, rate } = made;
    assert.deepEqual(
      { userPrefix, topics, expiresAt, rate },
      { ...limits, rate: { count, perMs } },
    );
    assert.deepEqual(await keys.list(), [made]);
    assert.deepEqual(await keys.verify(key), { ...made, headSeq: 0 });
  });
}

test('a key is valid until the millisecond in which it expires, and again after its expiry is changed', async (t) => {
  const { keys, time } = await openKeys(t);
  const expiresAt = time.now + 1000;
  const { key } = await keys.create({ name: 'one', scopes: ['publish'], expiresAt });
  const isValid = async () => typeof (await keys.verify(key)) === 'object';

  time.now = expiresAt - 1;
  assert.equal(await isValid(), true);
  time.now = expiresAt;
  assert.equal(await keys.verify(key), 'expired');
  assert.equal(await keys.verify(`${key.slice(0, 20)}${'A'.repeat(43)}`), undefined);
  assert.equal(await keys.change('one', { expiresAt: expiresAt + 1 }), true);
  assert.equal(await isValid(), true);
  time.now = expiresAt + 1;
  assert.equal(await keys.verify(key), 'expired');
  await keys.change('one', { expiresAt: null });

  assert.equal(await isValid(), true);
});

test('a change sets the given limits and keeps the others', async (t) => {
  const { keys, time } = await openKeys(t);
  const expiresAt = time.now + 1000;
  const { id } = await keys.create({ name: 'one', scopes: ['publish'] });
  await keys.create({ name: 'two', scopes: ['publish'] });
  const limits = async (name: string) => {
    const found = (await keys.list()).find((key) => key.name === name);
    return [found?.userPrefix, found?.topics, found?.expiresAt, found?.rate];
  };
  const rate = { count: 1, perMs: 5 };

  await keys.change('one', {
    userPrefix: 'shop:',
    topics: ['b', 'a:*', 'b'],
    expiresAt,
    rate: '1/5',
  });
  assert.deepEqual(await limits('one'), ['shop:', ['b', 'a:*'], expiresAt, rate]);
  await keys.change(id, { userPrefix: '' });
  assert.deepEqual(await limits('one'), ['', ['b', 'a:*'], expiresAt, rate]);
  await keys.change(id, { topics: ['A'] });
  assert.deepEqual(await limits('one'), ['', ['A'], expiresAt, rate]);
  await keys.change('one', { rate: null });
  assert.deepEqual(await limits('one'), ['', ['A'], expiresAt, undefined]);
  await keys.change('one', { expiresAt: null });
  assert.deepEqual(await limits('one'), ['', ['A'], undefined, undefined]);
  await keys.change('one', { topics: null });
  assert.deepEqual(await limits('one'), ['', undefined, undefined, undefined]);

  assert.deepEqual(await limits('two'), [undefined, undefined, undefined, undefined]);
});

test('an unknown or revoked key cannot be changed, and an expired key can', async (t) => {
  const { keys, time, lines } = await openKeys(t);
  await keys.create({ name: 'revoked', scopes: ['publish'] });
  await keys.revoke('revoked');
  const expiresAt = time.now + 1;
  const { id } = await keys.create({ name: 'expired', scopes: ['publish'], expiresAt });
  time.now = expiresAt;

  assert.equal(await keys.change('unknown', { rate: '1/1' }), false);
  assert.equal(await keys.change('revoked', { rate: '1/1' }), false);
  assert.equal(await keys.change('expired', { rate: '1/1', expiresAt: null }), true);

  const changes = lines.filter((line) => line['event'] === 'authz_change');
  assert.deepEqual(
    changes.map(({ keyId, reason }) => [keyId, reason]),
    [[id, 'expiresAt,rate']],
  );
});

test('the name of a key is unique', async (t) => {
  const { keys } = await openKeys(t);
  await keys.create({ name: 'one', scopes: ['publish', 'publish'] });

  await assert.rejects(keys.create({ name: 'one', scopes: ['publish'] }), { name: 'conflict' });

  assert.deepEqual((await keys.list())[0]?.scopes, ['publish']);
});

test('the last use of a key is stored once a minute', async (t) => {
  const { keys, time, statements } = await openKeys(t);
  const { key } = await keys.create({ name: 'one', scopes: ['publish'] });
  const lastUse = async () => (await keys.list())[0]?.lastUsedAt;
  const start = time.now;
  assert.equal(await lastUse(), undefined);

  await keys.verify(key);
  await until(async () => (await lastUse()) !== undefined);
  time.now = start + 59_999;
  statements.length = 0;
  await keys.verify(key);
  assert.equal(statements.length, 1); // The look-up, and no update.
  time.now = start + 60_000;
  await keys.verify(key);
  await until(async () => (await lastUse()) !== start);

  assert.equal(await lastUse(), start + 60_000);
});

test('only the first use of a valid key needs admission, and only uses of invalid keys stay counted', async (t) => {
  const { keys } = await openKeys(t);
  const { key } = await keys.create({ name: 'one', scopes: ['publish'] });
  const { counts, admit } = createAdmission();

  assert.ok(await keys.verify(key, admit));
  assert.ok(await keys.verify(key, admit));
  assert.deepEqual(counts, { admitted: 1, invalid: 0 });
  await keys.verify(unknownKey, admit);
  await keys.verify(unknownKey, admit);

  assert.deepEqual(counts, { admitted: 3, invalid: 2 });
});

test('a key that was loaded at the start needs no admission', async (t) => {
  const { keys, db } = await openKeys(t);
  const { key } = await keys.create({ name: 'one', scopes: ['publish'] });
  const { key: revokedKey } = await keys.create({ name: 'two', scopes: ['publish'] });
  await keys.revoke('two');
  const { keys: restarted } = createKeys(db);
  await restarted.loadKnown();
  const { counts, admit } = createAdmission();

  assert.ok(await restarted.verify(key, admit));
  assert.deepEqual(counts, { admitted: 0, invalid: 0 });
  assert.equal(await restarted.verify(revokedKey, admit), undefined);

  assert.deepEqual(counts, { admitted: 1, invalid: 1 });
});

test('a revoked key that was used before counts as invalid from its second use after the revocation', async (t) => {
  const { keys } = await openKeys(t);
  const { key } = await keys.create({ name: 'one', scopes: ['publish'] });
  const { counts, admit } = createAdmission();
  await keys.verify(key, admit);
  await keys.revoke('one');

  for (let count = 0; count < 3; count += 1) {
    assert.equal(await keys.verify(key, admit), undefined);
  }

  assert.deepEqual(counts, { admitted: 3, invalid: 2 });
});

test('a refused admission of an unknown key costs no query, and known keys are accepted meanwhile', async (t) => {
  const { keys, statements } = await openKeys(t);
  const { key } = await keys.create({ name: 'one', scopes: ['publish'] });
  await keys.verify(key);
  statements.length = 0;
  const refuse = () => {
    throw new Error('too many');
  };

  await assert.rejects(keys.verify(unknownKey, refuse), /too many/);
  assert.deepEqual(statements, []);
  assert.ok(await keys.verify(key, refuse));
});

test('a malformed key, and a wrong secret for a known id, cost no query and are not counted', async (t) => {
  const { keys, statements } = await openKeys(t);
  const { key, id } = await keys.create({ name: 'one', scopes: ['publish'] });
  await keys.verify(key);
  statements.length = 0;
  const { counts, admit } = createAdmission();

  const unusedBits = `${unknownKey.slice(0, -1)}B`;
  for (const text of [unusedBits, unknownKey.slice(1), `hk_${id}_${'A'.repeat(43)}`]) {
    assert.equal(await keys.verify(text, admit), undefined);
  }

  assert.deepEqual(statements, []);
  assert.deepEqual(counts, { admitted: 0, invalid: 0 });
  assert.ok(await keys.verify(key, admit));
});

test('an expired key counts as invalid from its second use on, and is not loaded at a later start', async (t) => {
  const { keys, db, time } = await openKeys(t);
  const expiresAt = time.now + 1;
  const { key } = await keys.create({ name: 'one', scopes: ['publish'], expiresAt });
  const { counts, admit } = createAdmission();
  await keys.verify(key, admit);
  time.now = expiresAt;
  for (let count = 0; count < 3; count += 1) assert.equal(await keys.verify(key, admit), 'expired');
  assert.deepEqual(counts, { admitted: 3, invalid: 2 });

  const restarted = createKeys(db);
  restarted.time.now = expiresAt;
  await restarted.keys.loadKnown();
  await restarted.keys.verify(key, admit);

  assert.deepEqual(counts, { admitted: 4, invalid: 3 });
});

test('a key whose query failed is not counted as invalid', async (t) => {
  const { db } = await openKeys(t);
  const broken = { ...db, query: () => Promise.reject(new Error('unavailable')) };
  const { keys } = createKeys(broken);
  const { counts, admit } = createAdmission();

  await assert.rejects(keys.verify(unknownKey, admit), /unavailable/);

  assert.deepEqual(counts, { admitted: 1, invalid: 0 });
});

test('keys that are used at the same time share a query', async (t) => {
  const { keys, statements, db } = await openKeys(t);
  const texts = Array.from(
    { length: 30 },
    (_, index) => `hk_${index.toString(16).padStart(16, '0')}_${'A'.repeat(43)}`,
  );
  statements.length = 0;

  const found = await Promise.all(texts.map((text) => keys.verify(text)));

  assert.deepEqual([...new Set(found)], [undefined]);
  assert.equal(statements.length, db.dialect === 'sqlite' ? 3 : 1); // SQLite starts two batches at once.
});
