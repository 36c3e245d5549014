import type { Config } from '../config/config.js';
import type { Database } from '../db/database.js';
import type { Log } from '../logging/log.js';
import { EventLog } from './event-log.js';
import { TableLog } from './sql/sql-log-store.js';
import { probeWrite } from './sql/write-probe.js';

export interface EventLogParts {
  readonly db: Database;
  readonly limits: Config['eventLog'];
  readonly log: Log;
  readonly clock: () => number;
  /** The epoch of a log that is created now: 1 to 15 of `0-9 a-z`, never used before. */
  readonly newEpoch: string;
  /** Called once when the stored log was replaced by another: from then on nothing can be read or written. */
  readonly onReplaced: () => void;
}

/** Opens the event log in its store, and creates it when there is none. Close it after the server. */
export async function openEventLog(parts: EventLogParts): Promise<EventLog> {
  const { db, limits, log, clock, newEpoch } = parts;
  const onReplaced = () => {
    log.error({}, 'the event log was replaced under this process, which has to begin anew');
    parts.onReplaced();
  };
  const store = await TableLog.open(db, { clock, newEpoch, onReplaced });
  return EventLog.open({ store, log, clock, limits });
}

/**
 * Writes as many bytes as the largest event has, into the store and for nobody to read. Rejects when
 * the store cannot take them. For a readiness check.
 */
export function probeEventLog(db: Database, bytes: number, now: number): Promise<void> {
  return probeWrite(db, bytes, now);
}
