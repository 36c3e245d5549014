import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { runSource, tempFolder } from '../../test/support/servers/process.js';
import { sql } from '../db/database.js';
import { SqliteDatabase } from '../db/sqlite/sqlite.js';
import { controlEntryAppender } from '../event-log/open.js';
import { ApiKeys } from '../identity/api-keys.js';
import { silentLogger } from '../logging/logger.js';

const name = ['--name', 'billing'];
const scope = ['--scope', 'publish'];

const run = (cwd: string, args: readonly string[]) => runSource('commands/key.ts', args, { cwd });

test('while a server runs, key creates a key that is valid at once, lists it, and revokes it', async (t) => {
  const cwd = tempFolder(t);
  const file = join(cwd, 'data/herald.db');
  const db = await SqliteDatabase.open({ dialect: 'sqlite', file, log: silentLogger });
  t.after(() => db.close());
  const keys = new ApiKeys({
    db,
    log: silentLogger,
    appendControlEntries: controlEntryAppender(db, Date.now),
  });

  const created = await run(cwd, ['create', '--name', 'billing', '--scope', 'publish']);
  assert.equal(created.code, 0, created.err);
  assert.match(created.out, /^hk_[0-9a-f]{16}_[\w-]{43}\n$/); // Nothing else, so that `$(…)` works.
  const key = created.out.trim();
  assert.equal(typeof (await keys.verify(key)), 'object');

  const listed = await run(cwd, ['list']);
  assert.match(listed.out, /^id +name.*\n[0-9a-f]{16} +billing +publish +active /);
  assert.equal(listed.out.includes(key), false);

  const revoked = await run(cwd, ['revoke', 'billing']);
  assert.equal(revoked.code, 0);
  assert.equal(await keys.verify(key), undefined);
  assert.match((await run(cwd, ['list', '--json'])).out, /"name":"billing".*"revokedAt":\d+/);
  const logged = readFileSync(join(cwd, 'logs', 'combined.log'), 'utf8');
  const events = [...logged.matchAll(/"audit":true,"event":"(\w+)"/g)].map(([, event]) => event);
  assert.deepEqual(events, ['authn_token_created', 'authn_token_revoked']);
  assert.equal(logged.includes(key), false);
  for (const part of ['herald.db', 'herald.db-wal']) {
    assert.equal(readFileSync(join(cwd, 'data', part)).includes(key), false);
  }
});

test('key creates a key with limits, lists them, and changes them', async (t) => {
  const cwd = tempFolder(t);
  const expiry = ['--expires-at', '2100-01-31T12:00:00+01:00'];
  const topicLimit = ['--topics', 'orders:*', '--topics', 'news'];
  const limits = ['--user-prefix', 'shop:', ...topicLimit, ...expiry, '--rate', '100/1000'];
  const scopes = ['publish', 'tickets', 'streams', 'disconnect', 'topics', 'metrics'];
  const list = async () => {
    const { out } = await run(cwd, ['list', '--json']);
    const { userPrefix, topics, expiresAt, rate } = JSON.parse(out) as Record<string, unknown>;
    return { userPrefix, topics, expiresAt, rate };
  };

  const args = ['create', ...name, ...scopes.flatMap((one) => ['--scope', one]), ...limits];
  const created = await run(cwd, args);
  assert.equal(created.code, 0, created.err);
  const expiresAt = Date.parse('2100-01-31T11:00:00Z');
  const topics = ['orders:*', 'news'];
  assert.deepEqual(await list(), { userPrefix: 'shop:', topics, expiresAt, rate: '100/1000' });
  assert.match(
    (await run(cwd, ['list'])).out,
    /publish,metrics,tickets,streams,disconnect,topics +active +'shop:' +orders:\*,news +2100-01-31 11:00:00 +100\/1000/,
  );

  const none = ['--topics', 'none', '--expires-at', 'none', '--rate', 'none', '--user-prefix', ''];
  const changed = await run(cwd, ['change', 'billing', ...none]);
  assert.deepEqual([changed.code, changed.out], [0, 'Key billing is changed\n'], changed.err);
  const unlimited = { topics: undefined, expiresAt: undefined };
  assert.deepEqual(await list(), { userPrefix: '', ...unlimited, rate: undefined });

  await run(cwd, ['change', 'billing', '--rate', '1/1']);
  assert.deepEqual(await list(), { userPrefix: '', ...unlimited, rate: '1/1' });
});

test('key list shows a key past its expiry as expired', async (t) => {
  const cwd = tempFolder(t);
  await run(cwd, ['create', ...name, ...scope]);
  const file = join(cwd, 'data/herald.db');
  const db = await SqliteDatabase.open({ dialect: 'sqlite', file, log: silentLogger });
  await db.execute(sql`update api_keys set expires_at = 1`);
  await db.close();

  const { out } = await run(cwd, ['list']);

  assert.match(out, / billing +publish +expired +1970-01-01 00:00:00 /);
});

// [description, arguments, exit code, message]
const refusals = [
  ['no command', [], 2, 'Cannot read arguments: no command is given'],
  ['no name', ['create', ...scope], 2, 'Cannot read arguments: needs --name'],
  ['no scope', ['create', ...name], 2, 'Cannot read arguments: needs --scope'],
  ['an unknown option', ['list', '--scopes'], 2, "Unknown option '--scopes'"],
  ['an unknown scope', ['create', ...name, '--scope', 'all'], 1, 'must be one of publish'],
  ['an invalid name', ['create', '--name', 'a b', ...scope], 1, 'Cannot set up key: the name'],
  [
    'the scope tickets and no user prefix',
    ['create', ...name, '--scope', 'tickets'],
    1,
    'Cannot set up key: the scope tickets needs a user prefix',
  ],
  [
    'an invalid user prefix',
    ['create', ...name, ...scope, '--user-prefix', 'a b'],
    1,
    'Cannot set up key: the user prefix must be',
  ],
  [
    'an invalid topic',
    ['create', ...name, ...scope, '--topics', 'orders*'],
    1,
    'Cannot set up key: each topic must be a topic, or *',
  ],
  [
    'none beside a topic',
    ['create', ...name, ...scope, '--topics', 'none', '--topics', 'orders:*'],
    2,
    '--topics none cannot be combined with topics',
  ],
  [
    'an invalid rate',
    ['create', ...name, ...scope, '--rate', '100'],
    1,
    'Cannot set up key: the rate must be <count>/<milliseconds>',
  ],
  [
    'a time in the past',
    ['create', ...name, ...scope, '--expires-at', '2020-01-01T00:00:00Z'],
    1,
    'the time at which the key expires must be in the future',
  ],
  ...[
    'tomorrow',
    '',
    '2100-02-30T00:00:00Z',
    '2100-01-01',
    '2100-01-01T00:00:00',
    '4102444800',
  ].map(
    (time) =>
      [
        `the time '${time}'`,
        ['create', ...name, ...scope, '--expires-at', time],
        2,
        '--expires-at must be a date and time such as',
      ] as const,
  ),
  ...[
    ['change', 'billing'],
    ['create', ...name, ...scope],
  ].map(
    (args) =>
      [
        `${args[0]} and the user prefix none`,
        [...args, '--user-prefix', 'none'],
        2,
        "--user-prefix none is ambiguous: use '' to remove the limit",
      ] as const,
  ),
  ['no limit to change', ['change', 'billing'], 2, 'needs a limit to change'],
  [
    'an unknown key to change',
    ['change', 'billing', '--rate', '1/1'],
    1,
    'Cannot change key billing: no active key',
  ],
  ['an unknown key', ['revoke', 'billing'], 1, 'Cannot revoke key billing: no active key'],
  ['nothing to revoke', ['revoke'], 2, 'Cannot read arguments: needs <id or name>'],
] as const;

for (const [what, args, expected, message] of refusals) {
  test(`key with ${what} exits with ${expected}, without a stack trace`, async (t) => {
    const { code, out, err } = await run(tempFolder(t), args);

    assert.equal(code, expected);
    assert.ok(err.includes(message), err);
    assert.equal(/^\s+at /m.test(err), false);
    assert.equal(out, '');
  });
}

test('key rejects a name in use', async (t) => {
  const cwd = tempFolder(t);
  await run(cwd, ['create', ...name, ...scope]);

  const { code, err } = await run(cwd, ['create', ...name, ...scope]);

  assert.equal(code, 1);
  assert.match(err, /^Cannot create key: the name is taken\n$/);
});

test('key rejects the name of a revoked key, and says that the key keeps it', async (t) => {
  const cwd = tempFolder(t);
  await run(cwd, ['create', ...name, ...scope]);
  await run(cwd, ['revoke', 'billing']);

  const { code, out, err } = await run(cwd, ['create', ...name, ...scope]);

  assert.deepEqual([code, out], [1, '']);
  const reason = 'a revoked key keeps the name: choose another one';
  assert.equal(err, `Cannot create key: ${reason}\n`);
});
