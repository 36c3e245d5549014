import { after, type TestContext, test } from 'node:test';
import type { Database, Dialect } from '../../../src/db/database.js';
import { tables } from '../../../src/db/migrations/list.js';
import { migrate } from '../../../src/db/migrations/migrate.js';
import { openDatabase } from '../../../src/db/open.js';
import { newDatabase, skipFor } from './new-database.js';
import { asIs } from './test-server.js';

export const allDialects = ['sqlite', 'postgres', 'mariadb', 'mysql'] as const;

export type TestOnDialects = (name: string, work: (t: TestContext) => Promise<void>) => void;

/** An open database of this file's own, and what takes it away. */
interface Place {
  readonly db: Database;
  remove(): Promise<void>;
}

interface Bench {
  readonly dialect: Dialect;
  /** One for each database that a single test has asked for; used again by the next test. */
  readonly places: Place[];
  taken: number;
}

const benches = new WeakMap<TestContext, Bench>();

/**
 * A `test` that runs each test once per dialect, as `postgres: what is promised`, in a database which
 * `databaseFor(t)` hands out empty. Tests of a file must not run at the same time. Where there is no
 * server, one skipped test says why. To be awaited at the top of the file.
 */
export async function testOnDialects(what: string): Promise<TestOnDialects> {
  const ready: Bench[] = [];
  for (const dialect of allDialects) {
    const skip = await skipFor(dialect);
    if (skip !== false) test(`${dialect}: ${what}`, { skip });
    else ready.push({ dialect, places: [], taken: 0 });
  }
  after(async () => {
    for (const place of ready.flatMap(({ places }) => places)) await place.remove();
  });
  return (name, work) => {
    for (const bench of ready) {
      test(`${bench.dialect}: ${name}`, (t) => {
        bench.taken = 0;
        benches.set(t, bench);
        return work(t);
      });
    }
  };
}

/** In a test of `testOnDialects`: a database with all tables and no rows, each time another one. */
export async function emptyDatabaseFor(t: TestContext): Promise<Database | undefined> {
  const bench = benches.get(t);
  if (bench === undefined) return undefined;
  bench.taken += 1;
  const found = bench.places[bench.taken - 1];
  if (found !== undefined) {
    await empty(found.db);
    return found.db;
  }
  const place = await openPlace(bench.dialect);
  bench.places.push(place);
  return place.db;
}

async function openPlace(dialect: Dialect): Promise<Place> {
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
async function empty(db: Database): Promise<void> {
  await db.transaction(async (tx) => {
    for (const table of tables) await tx.execute(asIs(`delete from ${table}`));
  });
}
