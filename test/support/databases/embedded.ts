import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { Database } from '../../../src/db/database.js';
import { openDatabase } from '../../../src/db/open.js';
import { recordedLog } from '../recording/record.js';
import { emptyDatabaseFor } from './dialects.js';

/** A folder of its own; gone after the test. */
export function folderFor(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'herald-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/**
 * A database of its own, with all tables, closed and gone after the test: in a test of
 * `testOnDialects` of the dialect it is about, else an embedded one.
 */
export async function databaseFor(t: TestContext): Promise<Database> {
  const given = await emptyDatabaseFor(t);
  if (given !== undefined) return given;
  const folder = mkdtempSync(join(tmpdir(), 'herald-'));
  const file = join(folder, 'test.db');
  const db = await openDatabase({ dialect: 'sqlite', file, log: recordedLog });
  t.after(async () => {
    await db.close();
    rmSync(folder, { recursive: true, force: true });
  });
  return db;
}
