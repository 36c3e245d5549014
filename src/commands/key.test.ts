import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { runSource, tempFolder } from '../../test/support/servers/process.js';
import { SqliteDatabase } from '../db/sqlite/sqlite.js';
import { controlEntryAppender } from '../event-log/open.js';
import { ApiKeys } from '../identity/api-keys.js';
import { silentLogger } from '../logging/logger.js';

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
  assert.equal((await keys.verify(key))?.name, 'billing');

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

const name = ['--name', 'billing'];
const scope = ['--scope', 'publish'];

// [description, arguments, exit code, message]
const refusals = [
  ['no command', [], 2, 'Cannot read arguments: no command is given'],
  ['no name', ['create', ...scope], 2, 'Cannot read arguments: needs --name'],
  ['no scope', ['create', ...name], 2, 'Cannot read arguments: needs --scope'],
  ['an unknown option', ['list', '--scopes'], 2, "Unknown option '--scopes'"],
  ['an unknown scope', ['create', ...name, '--scope', 'all'], 1, 'must be one of publish'],
  ['an invalid name', ['create', '--name', 'a b', ...scope], 1, 'Cannot create key: the name'],
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
