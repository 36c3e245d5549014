import { after, type TestContext, test } from 'node:test';
import type { Database, Dialect } from '../../../src/db/database.js';
import { tables } from '../../../src/db/migrations/list.js';
import { migrate } from '../../../src/db/migrations/migrate.js';
import { openDatabase } from '../../../src/db/open.js';
import { newDatabase, skipFor } from './new-database.js';
import { rawSql } from './test-server.js';

export const allDialects = ['sqlite', 'postgres', 'mariadb', 'mysql'] as const;

export type TestOnDialects = (name: string, work: (t: TestContext) => Promise<void>) => void;

/** An open database of this file's own, and what takes it away. */
interface PooledDatabase {
  readonly db: Database;
  remove(): Promise<void>;
}

interface DialectFixture {
  readonly dialect: Dialect;
  /** One for each database that a single test has asked for; used again by the next test. */
  readonly databases: PooledDatabase[];
  usedCount: number;
}

const fixtures = new WeakMap<TestContext, DialectFixture>();

/**
 * A `test` that runs each test once per dialect, as `postgres: what is promised`, in a database which
 * `databaseFor(t)` hands out empty. Tests of a file must not run at the same time. Where there is no
 * server, one skipped test says why. To be awaited at the top of the file.
 */
export async function testOnDialects(what: string): Promise<TestOnDialects> {
  const ready: DialectFixture[] = [];
  for (const dialect of allDialects) {
    const skip = await skipFor(dialect);
    if (skip !== false) test(`${dialect}: ${what}`, { skip });
    else ready.push({ dialect, databases: [], usedCount: 0 });
  }
  after(async () => {
    for (const database of ready.flatMap(({ databases }) => databases)) await database.remove();
  });
  return (name, work) => {
    for (const fixture of ready) {
      test(`${fixture.dialect}: ${name}`, (t) => {
        fixture.usedCount = 0;
        fixtures.set(t, fixture);
        return work(t);
      });
    }
  };
}

/** In a test of `testOnDialects`: a database with all tables and no rows, each time another one. */
export async function emptyDatabaseFor(t: TestContext): Promise<Database | undefined> {
  const fixture = fixtures.get(t);
  if (fixture === undefined) return undefined;
  fixture.usedCount += 1;
  const found = fixture.databases[fixture.usedCount - 1];
  if (found !== undefined) {
    await deleteAllRows(found.db);
    return found.db;
  }
  const database = await openPooledDatabase(fixture.dialect);
  fixture.databases.push(database);
  return database.db;
}

async function openPooledDatabase(dialect: Dialect): Promise<PooledDatabase> {
  const { options, drop } = await newDatabase(dialect);
  await migrate(options);
  const db = await openDatabase(options);
  return {
    db,
    async remove() {
      await db.close();
      await drop();
    },
  };
}

/** Rows only, for that is quicker than tables. */
async function deleteAllRows(db: Database): Promise<void> {
  await db.transaction(async (tx) => {
    for (const table of tables) await tx.execute(rawSql(`delete from ${table}`));
  });
}
