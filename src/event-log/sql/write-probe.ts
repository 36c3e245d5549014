import { randomBytes } from 'node:crypto';
import { type Database, sql, UniqueViolation } from '../../db/database.js';

/**
 * Writes `bytes` of data to the row with `seq` 0, which stays in the table. No reader sees this row,
 * because sequence numbers start at 1. Rejects when the database cannot be written.
 */
export async function probeWrite(db: Database, bytes: number, now: number): Promise<void> {
  // Random, because a database server may compress text, and skip the update of an unchanged row.
  const data = randomBytes(bytes).toString('base64').slice(0, bytes);
  const updatedRows = await db.execute(sql`update events set data = ${data} where seq = 0`);
  if (updatedRows > 0) return;
  try {
    await db.execute(sql`insert into events (seq, data, created_at) values (0, ${data}, ${now})`);
  } catch (cause) {
    if (!(cause instanceof UniqueViolation)) throw cause; // Another process has inserted it.
  }
}
