import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { runSource, tempFolder } from '../../test/support/servers/process.js';
import { SqliteDatabase } from '../db/sqlite/sqlite.js';
import { silentLogger } from '../logging/logger.js';

const cheapHashing = { ARGON2_ALLOW_WEAK: 'true', ARGON2_MEMORY_KIB: '7168', ARGON2_TIME: '1' };

const sync = (cwd: string, args: readonly string[] = [], env = {}) =>
  runSource('commands/sync.ts', args, { cwd, env });
const seed = (cwd: string, env = {}) =>
  runSource('commands/seed.ts', [], { cwd, env: { ...cheapHashing, ...env } });
const users = async (cwd: string) =>
  (await runSource('commands/user.ts', ['list', '--json'], { cwd })).out;

const production = {
  NODE_ENV: 'production',
  ACCESS_TOKEN_SECRET: 'hex:8f1d4c7be2a9036577d0c1b2a3948576e5f60718293a4b5c6d7e8f9001122334',
  ACCESS_TOKEN_AUDIENCE: 'test',
  ACCESS_TOKEN_ISSUER: 'test',
};

test('sync prints the pending migrations, applies them, and has nothing to do the second time', async (t) => {
  const cwd = tempFolder(t);

  const before = await sync(cwd, ['--dry-run']);
  assert.equal(before.code, 0, before.err);
  assert.match((await sync(cwd, ['--status'])).out, /no database yet/);
  assert.equal(existsSync(join(cwd, 'data/herald.db')), false);

  const first = await sync(cwd);
  assert.equal(first.code, 0, first.err);
  assert.match(first.out, /^Applied {2}1 init\n/);

  assert.match((await sync(cwd, ['--status'])).out, /^Applied {2}1 init, 20/);
  assert.match((await sync(cwd, ['--dry-run'])).out, /^Nothing is pending\n$/);
  assert.match((await sync(cwd)).out, /nothing was pending\n$/);
});

test('sync keeps the rows of the tables; sync --reset --yes deletes them', async (t) => {
  const cwd = tempFolder(t);
  await seed(cwd);

  await sync(cwd);
  assert.match(await users(cwd), /"username":"test"/);

  for (const args of [['--reset'], ['--reset', '--yes=other']]) {
    const { code, err } = await sync(cwd, args);
    assert.equal(code, 1);
    assert.match(err, /^Cannot reset database: it has users; confirm with --yes=herald\.db\n$/);
  }
  assert.match(await users(cwd), /"username":"test"/);

  const { code, out } = await sync(cwd, ['--reset', '--yes=herald.db']);
  assert.equal(code, 0);
  assert.match(out, /^All tables dropped\nApplied {2}1 init\n/);
  assert.equal(await users(cwd), '');
});

test('sync --reset and seed are refused in production', async (t) => {
  const cwd = tempFolder(t);
  await seed(cwd);

  const reset = await sync(cwd, ['--reset', '--yes=herald.db'], production);
  assert.equal(reset.code, 1);
  assert.match(reset.err, /^Cannot reset database: this is production\n$/);
  const seeded = await seed(cwd, production);
  assert.equal(seeded.code, 1);
  assert.match(seeded.err, /^Cannot seed: this is production; npm run user -- create/);

  assert.match(await users(cwd), /"username":"test"/);
});

test('while a server runs, sync --status works, and sync --reset is refused with the process id of the server', async (t) => {
  const cwd = tempFolder(t);
  const file = join(cwd, 'data/herald.db');
  const server = await SqliteDatabase.open({ dialect: 'sqlite', file, log: silentLogger });
  t.after(() => server.close());

  assert.equal((await sync(cwd, ['--status'])).code, 0);
  const { code, err } = await sync(cwd, ['--reset', '--yes=herald.db']);

  assert.equal(code, 1);
  assert.match(err, new RegExp(`^Cannot open database .*: process ${process.pid} on .*DB_DIALECT`));
  assert.equal(/^\s+at /m.test(err), false);
});

test('seed creates the demo user and is idempotent', async (t) => {
  const cwd = tempFolder(t);

  assert.equal((await seed(cwd)).out, 'User test created with password test\n');
  assert.equal((await seed(cwd)).out, 'User test already exists\n');
  assert.match(await users(cwd), /"firstName":"John","lastName":"Doe"/);
});

// [description, arguments, environment, exit code, message]
const refusals = [
  ['an unknown option', ['--force'], {}, 2, "Unknown option '--force'"],
  ['an extra argument', ['now'], {}, 2, "unexpected argument 'now'"],
  ['--yes without --reset', ['--yes=herald.db'], {}, 2, '--yes goes with --reset'],
  ['two exclusive options', ['--status', '--reset'], {}, 2, 'exclude each other'],
  ['an invalid setting', [], { DB_DIALECT: 'oracle' }, 1, 'DB_DIALECT must be one of'],
  [
    'an unreachable database server',
    [],
    { DB_DIALECT: 'postgres', DB_PORT: '1' },
    1,
    'ECONNREFUSED',
  ],
] as const;

for (const [what, args, env, expected, message] of refusals) {
  test(`sync with ${what} exits with ${expected}, without a stack trace`, async (t) => {
    const { code, out, err } = await sync(tempFolder(t), args, env);

    assert.equal(code, expected);
    assert.ok(err.includes(message), err);
    assert.equal(/^\s+at /m.test(err), false);
    assert.equal(out, '');
  });
}
