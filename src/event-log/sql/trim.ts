import { type Database, sql } from '../../db/database.js';
import type { TrimRange } from '../log-store.js';
import { recordTrimmed, type TrimmedAudience } from './trimmed-audiences.js';

/** Deletes a range of entries in one transaction, see `LogStore.trim`. */
export function trimRange(
  db: Database,
  { after, upTo, events, bytes }: TrimRange,
): Promise<number> {
  return db.transaction(async (tx) => {
    const updatedHeads = await tx.execute(
      sql`update log_head set trimmed_seq = ${upTo}, events = events - ${events},
          bytes = bytes - ${bytes}
        where id = 1 and trimmed_seq = ${after}`,
    );
    if (updatedHeads === 0) return 0; // Another process has trimmed, so `bytes` is stale.
    const trimmed = await tx.query<TrimmedAudience>(
      sql`select audience, max(seq) as seq from event_audiences
        where seq <= ${upTo} group by audience`,
    );
    await recordTrimmed(tx, trimmed);
    const deletedRecipients = await tx.execute(
      sql`delete from event_audiences where seq <= ${upTo}`,
    );
    return deletedRecipients + (await tx.execute(sql`delete from events where seq <= ${upTo}`));
  });
}
