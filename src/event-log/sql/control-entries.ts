import { type Database, inserts, type Notifier, sql } from '../../db/database.js';
import { type ControlEntry, formatControlEntry } from '../../events/control-entry.js';
import { readHead } from './log-generation.js';

export interface ControlEntryParts {
  readonly wallClock: () => number;
  /** The notifier of the database that the transaction belongs to. */
  readonly notifier: Notifier | undefined;
}

/**
 * Appends control entries in the transaction that makes the change they describe. Call it after
 * everything that may wait for a lock, because the transaction then holds the lock on the counter row, for
 * which all publishers wait. Does nothing when the event log does not exist, because then no server
 * has run yet. Returns the number of the last entry; 0 without entries or without an event log.
 */
export async function appendControlEntries(
  tx: Database,
  entries: readonly ControlEntry[],
  { wallClock, notifier }: ControlEntryParts,
): Promise<number> {
  if (entries.length === 0) return 0;
  const [, head] = await Promise.all([
    tx.execute(sql`update log_head set seq = seq + ${entries.length} where id = 1`),
    readHead(tx),
  ]);
  if (head === undefined) return 0;
  const firstSeq = head.seq - entries.length + 1;
  const now = wallClock();
  const rows = entries.map((entry, index) => [
    firstSeq + index,
    '',
    now,
    formatControlEntry(entry),
  ]);
  const inserting = inserts(
    sql`insert into events (seq, data, created_at, control) values `,
    rows,
  ).map((insert) => tx.execute(insert));
  await Promise.all([...inserting, notifier?.notify(tx)]);
  return head.seq;
}
