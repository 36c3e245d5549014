import { after, type TestContext, test } from 'node:test';
import type { Database, Dialect } from '../../../src/db/database.js';
import { tables } from '../../../src/db/migrations/list.js';
import { migrate } from '../../../src/db/migrations/migrate.js';
import { openDatabase } from '../../../src/db/open.js';
import { newDatabase, skipFor } from './new-database.js';
import { rawSql } from './test-server.js';

export const allDialects = ['sqlite', 'postgres', 'mariadb', 'mysql'] as const;
/** The dialects with row locks. The embedded database has a single writer. */
export const serverDialects = ['postgres', 'mariadb', 'mysql'] as const;

/** Registers a test on each of `dialects`, by default on all. */
export type TestOnDialects = (
  name: string,
  work: (t: TestContext) => Promise<void>,
  dialects?: readonly Dialect[],
) => void;

/** An open database that the tests of one file use one after another. */
interface PooledDatabase {
  readonly db: Database;
  /** Closes the connections and drops the database. */
  remove(): Promise<void>;
}

/** The databases of one test file on one dialect. */
interface DialectFixture {
  readonly dialect: Dialect;
  /** All databases created so far. Each test uses them again, from the first one on. */
  readonly databases: PooledDatabase[];
  /** How many of `databases` the current test uses. */
  usedCount: number;
}

const fixtures = new WeakMap<TestContext, DialectFixture>();

/**
 * Returns a function like `test` that runs each test once per dialect and puts the dialect in front of its
 * name, as in `postgres: an event is stored`. In the test `databaseFor(t)` returns a database of this dialect.
 * The tests of a file must not run concurrently. If there is no database server for a dialect, none of the tests
 * is registered for it; instead, one skipped test with the name `<dialect>: <what>` reports why. Await this
 * function once, at the top of the file.
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
  return (name, work, dialects = allDialects) => {
    for (const fixture of ready.filter(({ dialect }) => dialects.includes(dialect))) {
      test(`${fixture.dialect}: ${name}`, (t) => {
        fixture.usedCount = 0;
        fixtures.set(t, fixture);
        return work(t);
      });
    }
  };
}

/**
 * Returns a database with all tables and no rows. Each call within one test returns another database. Returns
 * undefined outside a test of `testOnDialects`.
 */
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

/** Deletes rows only, because recreating tables is slower. */
async function deleteAllRows(db: Database): Promise<void> {
  await db.transaction(async (tx) => {
    for (const table of tables) await tx.execute(rawSql(`delete from ${table}`));
  });
}
