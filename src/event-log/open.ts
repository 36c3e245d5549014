import type { Config } from '../config/config.js';
import type { Database } from '../db/database.js';
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
  /** Epoch of a new log, if one is created: 1 to 15 of `0-9 a-z`, never used before. */
  readonly newEpoch: string;
  /** Called once when the stored log was replaced. From then on every read and append fails. */
  readonly onReplaced: () => void;
  readonly publisherKeys: PublisherKeys;
}

/** Opens the event log, and creates it if there is none. Close it after the server. */
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
 * Returns what appends control entries in a transaction on this database: as the last step that may
 * wait for a lock. It needs no open event log; commands use it beside a running server.
 */
export function controlEntryAppender(
  db: Database,
  wallClock: () => number,
): (tx: Database, entries: readonly ControlEntry[]) => Promise<void> {
  const { notifier } = db;
  return (tx, entries) => appendControlEntries(tx, entries, { wallClock, notifier });
}

/**
 * Writes as many bytes as the largest event has, into the store and for nobody to read. Rejects when
 * the store cannot take them. For a readiness check.
 */
export function probeEventLog(db: Database, bytes: number, now: number): Promise<void> {
  return probeWrite(db, bytes, now);
}
