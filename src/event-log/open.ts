import type { Config } from '../config/config.js';
import type { Database } from '../db/database.js';
import type { Logger } from '../logging/logger.js';
import { EventLog } from './event-log.js';
import { SqlLogStore } from './sql/sql-log-store.js';
import { probeWrite } from './sql/write-probe.js';

export interface EventLogParts {
  readonly db: Database;
  readonly limits: Config['eventLog'];
  readonly log: Logger;
  readonly wallClock: () => number;
  /** The epoch of a log that is created now: 1 to 15 of `0-9 a-z`, never used before. */
  readonly newEpoch: string;
  /** Called once when the stored log was replaced by another: from then on nothing can be read or written. */
  readonly onReplaced: () => void;
}

/** Opens the event log in its store, and creates it when there is none. Close it after the server. */
export async function openEventLog(parts: EventLogParts): Promise<EventLog> {
  const { db, limits, log, wallClock, newEpoch } = parts;
  const onReplaced = () => {
    log.error({}, 'event log was replaced, process must restart');
    parts.onReplaced();
  };
  const store = await SqlLogStore.open(db, { wallClock, newEpoch, onReplaced });
  return EventLog.open({ store, log, wallClock, limits });
}

/**
 * Writes as many bytes as the largest event has, into the store and for nobody to read. Rejects when
 * the store cannot take them. For a readiness check.
 */
export function probeEventLog(db: Database, bytes: number, now: number): Promise<void> {
  return probeWrite(db, bytes, now);
}
