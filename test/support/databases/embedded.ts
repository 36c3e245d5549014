import type { TestContext } from 'node:test';
import type { Database } from '../../../src/db/database.js';
import { openDatabase } from '../../../src/db/open.js';
import { emptyDatabaseFor } from './dialects.js';
import { newDatabase } from './new-database.js';

/**
 * Opens a database with all tables and no rows for one test: of the test's dialect in a test of
 * `testOnDialects`, otherwise an embedded one, which is deleted after the test.
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
