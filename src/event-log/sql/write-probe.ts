import { type Database, sql, UniqueViolation } from '../../db/database.js';

/**
 * Writes as much as the largest event has, in a row that is for nobody: events begin at 1, and what
 * is below goes when the log is trimmed. Rejects when the database cannot take it.
 */
export async function probeWrite(db: Database, bytes: number, now: number): Promise<void> {
  const data = `${now}`.padEnd(bytes, 'x'); // Another each time, or a server would write nothing.
  const updatedRows = await db.execute(sql`update events set data = ${data} where seq = 0`);
  if (updatedRows > 0) return;
  try {
    await db.execute(sql`insert into events (seq, data, created_at) values (0, ${data}, ${now})`);
  } catch (cause) {
    if (!(cause instanceof UniqueViolation)) throw cause; // Another process was faster.
  }
}
