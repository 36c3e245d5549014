import { type Database, sql } from '../../db/database.js';
import type { TrimRange } from '../log-store.js';
import { recordTrimmed, type TrimmedAudience } from './trimmed-audiences.js';

/**
 * Deletes a range of entries in one transaction, see `LogStore.trim`.
 *
 * The counter row is the last lock, because publishers wait for it and every other statement may wait for
 * rows that another transaction has locked. The events are deleted first: when several processes trim at
 * the same time, all but one wait at the first event, and none of them at an audience.
 *
 * Each range has a lower bound: while a backup holds a snapshot, the database keeps deleted rows, and would
 * read all that were trimmed before.
 */
export async function trimRange(db: Database, range: TrimRange): Promise<number> {
  try {
    return await db.transaction((tx) => deleteRange(tx, range));
  } catch (error) {
    if (error instanceof AlreadyTrimmed) return 0;
    throw error;
  }
}

/** Thrown to roll back a trim, because another process has trimmed since its range was computed. */
class AlreadyTrimmed extends Error {
  override readonly name = 'AlreadyTrimmed';
}

async function deleteRange(
  tx: Database,
  { after, upTo, events, bytes }: TrimRange,
): Promise<number> {
  const deletedEntries = await tx.execute(
    sql`delete from events where seq > ${after} and seq <= ${upTo}`,
  );
  const trimmed = await tx.query<TrimmedAudience>(
    sql`select audience, max(seq) as seq from event_audiences
      where seq > ${after} and seq <= ${upTo} group by audience`,
  );
  await recordTrimmed(tx, trimmed);
  const deletedRecipients = await tx.execute(
    sql`delete from event_audiences where seq > ${after} and seq <= ${upTo}`,
  );
  const updatedHeads = await tx.execute(
    sql`update log_head set trimmed_seq = ${upTo}, events = events - ${events},
        bytes = bytes - ${bytes}
      where id = 1 and trimmed_seq = ${after}`,
  );
  if (updatedHeads === 0) throw new AlreadyTrimmed();
  return deletedRecipients + deletedEntries;
}
