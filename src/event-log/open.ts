import type { Config } from '../config/config.js';
import { type Database, sql } from '../db/database.js';
import type { ControlEntry } from '../events/control-entry.js';
import type { Logger } from '../logging/logger.js';
import { EventLog } from './event-log.js';
import { appendControlEntries } from './sql/control-entries.js';
import type { PublisherKeys } from './sql/publisher-keys.js';
import { SqlLogStore } from './sql/sql-log-store.js';
import { probeWrite } from './sql/write-probe.js';

export interface EventLogParts {
  readonly db: Database;
  readonly limits: Config['eventLog'];
  readonly log: Logger;
  readonly wallClock: () => number;
  /**
   * Epoch of a new event log: 1 to 15 characters of `0-9 a-z`, never used before. An event log whose counter
   * went back gets this epoch with the suffix `r`.
   */
  readonly newEpoch: string;
  /** Called once when the stored event log was replaced. From then on reads and appends fail. */
  readonly onReplaced: () => void;
  readonly publisherKeys: PublisherKeys;
}

/** Opens the event log. Creates it if there is none. Close it after the server. */
export async function openEventLog(parts: EventLogParts): Promise<EventLog> {
  const { db, limits, log, wallClock, newEpoch, publisherKeys: keys } = parts;
  const onReplaced = () => {
    log.error({}, 'event log was replaced, process must restart');
    parts.onReplaced();
  };
  const store = await SqlLogStore.open(db, { wallClock, newEpoch, onReplaced, keys });
  return EventLog.open({ store, log, wallClock, limits });
}

/**
 * Appends control entries in a transaction, and resolves to the number of the last entry. Call it after every
 * other step of the transaction that may wait for a lock.
 */
export type AppendControlEntries = (
  tx: Database,
  entries: readonly ControlEntry[],
) => Promise<number>;

/**
 * Returns a function that appends control entries in a transaction `tx` of this database. The function needs
 * no open `EventLog`, so commands can use it while a server runs.
 */
export function controlEntryAppender(db: Database, wallClock: () => number): AppendControlEntries {
  const { notifier } = db;
  return (tx, entries) => appendControlEntries(tx, entries, { wallClock, notifier });
}

/** SQL that selects the number of the newest entry of the event log, as part of another query. */
export const headSeqSql = sql`(select seq from log_head where id = 1)`;

/** Selects the number up to which the event log is trimmed, as part of another query. */
export const trimmedSeqSql = sql`(select trimmed_seq from log_head where id = 1)`;

/**
 * Writes `bytes` of data to a row that no reader sees. Rejects when the database cannot be written.
 * The readiness check calls it with the size of the largest event.
 */
export function probeEventLog(db: Database, bytes: number, now: number): Promise<void> {
  return probeWrite(db, bytes, now);
}
