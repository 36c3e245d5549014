import type { TestContext } from 'node:test';
import type { Database } from '../../../src/db/database.js';
import { openDatabase } from '../../../src/db/open.js';
import { emptyDatabaseFor } from './dialects.js';
import { newDatabase } from './new-database.js';

/**
 * Opens a database with all tables and no rows for one test. In a test of `testOnDialects` the database has the
 * dialect of the test. Otherwise it is an embedded database, which is deleted after the test.
 */
export async function databaseFor(t: TestContext): Promise<Database> {
  const dialectDatabase = await emptyDatabaseFor(t);
  if (dialectDatabase !== undefined) return dialectDatabase;
  const { options, drop } = await newDatabase('sqlite');
  const db = await openDatabase(options);
  t.after(async () => {
    await db.close();
    await drop();
  });
  return db;
}
