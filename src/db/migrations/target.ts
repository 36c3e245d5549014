import type { SqlExecutor } from '../transaction.js';

/** A database that is to be migrated or looked at, over a connection of its own. */
export interface MigrationTarget {
  /** Waits for nobody; `work` must not write. */
  read<Result>(work: (executor: SqlExecutor) => Promise<Result>): Promise<Result>;

  /**
   * Runs `work` while no other migrator runs. Where tables can be rolled back, all of `work` is one
   * transaction. Only for a target opened to `change`.
   */
  runExclusively<Result>(work: (executor: SqlExecutor) => Promise<Result>): Promise<Result>;

  close(): Promise<void>;
}

/** `change`: the database is made if it is missing, and others are kept out. */
export type Purpose = 'look' | 'change';
