import type { TestContext } from 'node:test';
import type { Database } from '../../../src/db/database.js';
import { openDatabase } from '../../../src/db/open.js';
import { emptyDatabaseFor } from './dialects.js';
import { newDatabase } from './new-database.js';

/**
 * A database of its own, with all tables, closed and gone after the test: in a test of
 * `testOnDialects` of the dialect it is about, else an embedded one.
 */
export async function databaseFor(t: TestContext): Promise<Database> {
  const given = await emptyDatabaseFor(t);
  if (given !== undefined) return given;
  const { options, drop } = await newDatabase('sqlite');
  const db = await openDatabase(options);
  t.after(async () => {
    await db.close();
    await drop();
  });
  return db;
}
