import { type Database, type Sql, sql } from '../../../src/db/database.js';
import { until } from '../until.js';

/**
 * Runs `work` while another transaction holds the locks of the statement. That transaction commits when `work`
 * calls `release`, at the latest when `work` ends.
 */
export async function whileLocked(
  db: Database,
  statement: Sql,
  work: (release: () => Promise<void>) => Promise<void>,
): Promise<void> {
  const { release } = await holdLocks(db, statement);
  try {
    await work(release);
  } finally {
    await release();
  }
}

function holdLocks(db: Database, statement: Sql): Promise<{ release(): Promise<void> }> {
  return new Promise((resolve, reject) => {
    const holding = db.transaction(async (tx) => {
      await tx.execute(statement);
      await new Promise<void>((commit) => {
        const release = () => {
          commit();
          return holding;
        };
        resolve({ release });
      });
    });
    holding.catch(reject);
  });
}

/**
 * Settles once `count` other connections are in a statement that starts with `text`. On PostgreSQL, counts only
 * connections that wait for a lock.
 */
export function waitForBlocked(db: Database, text: string, count = 1): Promise<void> {
  const blocked =
    db.dialect === 'postgres'
      ? sql`select pid from pg_stat_activity
          where datname = current_database() and wait_event_type = 'Lock' and query like ${`${text}%`}`
      : // Not `innodb_trx`: it is a cache, which is not refreshed while it is read more than ten times a second.
        sql`select id from information_schema.processlist
          where db = database() and id <> connection_id() and info like ${`${text}%`}`;
  return until(async () => (await db.query(blocked)).length >= count);
}
