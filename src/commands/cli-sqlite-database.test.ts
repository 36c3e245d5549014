import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { tempFolder } from '../../test/support/servers/process.js';
import { sql, UniqueViolation } from '../db/database.js';
import { SqliteDatabase } from '../db/sqlite/sqlite.js';
import { silentLogger } from '../logging/logger.js';
import { CliSqliteDatabase } from './cli-sqlite-database.js';

/** Opens the database of a server with a table `notes`, and a CLI database on the same file. */
async function openBoth(
  t: TestContext,
): Promise<{ server: SqliteDatabase; cli: CliSqliteDatabase }> {
  const file = join(tempFolder(t), 'herald.db');
  const server = await SqliteDatabase.open({ dialect: 'sqlite', file, log: silentLogger });
  await server.execute(sql`create table notes (id integer primary key, text varchar(64))`);
  const cli = await CliSqliteDatabase.open(file);
  t.after(async () => {
    await cli.close();
    await server.close();
  });
  return { server, cli };
}

const countNotes = sql`select count(*) as n from notes`;

test("a command and the server write at the same time and see each other's rows", async (t) => {
  const { server, cli } = await openBoth(t);
  const ids = Array.from({ length: 300 }, (_, n) => n);

  const writing = Promise.all(
    ids.map((n) => server.execute(sql`insert into notes values (${2 * n}, 'server')`)),
  );
  for (const n of ids) {
    await cli.execute(sql`insert into notes values (${2 * n + 1}, 'command')`);
    // `cli` blocks this thread; lets the replies of the server's writer thread arrive.
    if (n % 10 === 0) await new Promise(setImmediate);
  }
  await writing;

  assert.deepEqual(await server.query(countNotes), [{ n: 600 }]);
  assert.deepEqual(await cli.query(countNotes), [{ n: 600 }]);
});

test('a transaction that rejects is rolled back, and the next one works', async (t) => {
  const { server, cli } = await openBoth(t);

  const failing = cli.transaction(async (tx) => {
    await tx.execute(sql`insert into notes values (1, 'gone')`);
    throw new Error('on purpose');
  });
  await assert.rejects(failing, /on purpose/);
  await cli.transaction((tx) => tx.execute(sql`insert into notes values (2, 'kept')`));

  assert.deepEqual(await server.query(sql`select id from notes`), [{ id: 2 }]);
});

test('a duplicate key is a UniqueViolation, and a nested transaction is rejected', async (t) => {
  const { cli } = await openBoth(t);
  const insert = sql`insert into notes values (1, 'one')`;

  assert.equal(await cli.execute(insert), 1);

  await assert.rejects(cli.execute(insert), UniqueViolation);
  await assert.rejects(
    cli.transaction((tx) => tx.transaction(async () => {})),
    /one is open/,
  );
});

test('close is idempotent, and statements after it are rejected', async (t) => {
  const { cli } = await openBoth(t);

  await cli.close();
  await cli.close();

  await assert.rejects(cli.query(countNotes), /it is closed/);
  await assert.rejects(
    cli.transaction(async () => {}),
    /it is closed/,
  );
});
