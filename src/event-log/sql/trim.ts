import { type Database, sql } from '../../db/database.js';
import { getTopic } from '../../events/audience.js';
import type { TrimRange } from '../log-store.js';
import { recordTrimmed, type TrimmedAudience } from './trimmed-audiences.js';
import { recordTrimmedTopics } from './trimmed-topics.js';

/**
 * Deletes a range of entries in one transaction, see `LogStore.trim`.
 *
 * The counter row is locked last, because publishers wait for it, and the other statements may have to wait
 * for rows that another transaction has locked. The events are deleted first: when several processes trim at
 * the same time, all but one wait at the first event, and none of them at an audience.
 *
 * Each statement repeats the lower bound of the range. While a backup holds a snapshot, the database keeps
 * deleted rows, and without the bound a statement would read all rows that were trimmed before.
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
  { after, upTo, eventCount, bytes, now }: TrimRange,
): Promise<number> {
  // Locks nothing. If another process trims meanwhile, this trim is rolled back.
  const trimmed = await tx.query<TrimmedAudience>(
    sql`select audience, max(recipient.seq) as seq
      from event_audiences recipient join events event on event.seq = recipient.seq
      where recipient.seq > ${after} and recipient.seq <= ${upTo}
        and (event.expires_at is null or event.expires_at > ${now})
      group by audience`,
  );
  const deletedEntries = await tx.execute(
    sql`delete from events where seq > ${after} and seq <= ${upTo}`,
  );
  const topics = trimmed.flatMap(({ audience, seq }) => {
    const topic = getTopic(audience);
    return topic === undefined ? [] : [{ topic, seq }];
  });
  const others = trimmed.filter(({ audience }) => getTopic(audience) === undefined);
  await recordTrimmed(tx, others);
  await recordTrimmedTopics(tx, { after, upTo, topics });
  const deletedRecipients = await tx.execute(
    sql`delete from event_audiences where seq > ${after} and seq <= ${upTo}`,
  );
  const updatedHeads = await tx.execute(
    sql`update log_head set trimmed_seq = ${upTo}, events = events - ${eventCount},
        bytes = bytes - ${bytes}
      where id = 1 and trimmed_seq = ${after}`,
  );
  if (updatedHeads === 0) throw new AlreadyTrimmed();
  return deletedRecipients + deletedEntries;
}
