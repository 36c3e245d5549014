import type { Share } from './concurrency-limiter.js';
import type { Database, Sql } from './database.js';

/** A database whose methods accept the `Share` of the `ConcurrencyLimiter` in which they run. */
export interface DatabaseWithShares extends Database {
  query<Row extends object>(statement: Sql, share?: Share): Promise<Row[]>;
  execute(statement: Sql, share?: Share): Promise<number>;
  transaction<Result>(work: (tx: Database) => Promise<Result>, share?: Share): Promise<Result>;
}

/** Creates `Database.background`: a view of a database that runs all work in the share `background`. */
export function createBackgroundView(db: DatabaseWithShares): Database {
  return {
    dialect: db.dialect,
    notifier: db.notifier,
    query: (statement) => db.query(statement, 'background'),
    execute: (statement) => db.execute(statement, 'background'),
    transaction: (work) => db.transaction(work, 'background'),
    close: () => db.close(),
  };
}
