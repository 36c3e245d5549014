import type { SqlExecutor } from '../transaction.js';

/** A database to migrate or to read the schema of, over a separate connection. */
export interface MigrationTarget {
  /** Runs `work` without a lock; it must not write. */
  read<Result>(work: (executor: SqlExecutor) => Promise<Result>): Promise<Result>;

  /**
   * Runs `work` while no other migrator runs, in one transaction where DDL can be rolled back.
   * Requires a target opened to `migrate`.
   */
  runExclusively<Result>(work: (executor: SqlExecutor) => Promise<Result>): Promise<Result>;

  close(): Promise<void>;
}

/** `migrate`: a missing database is created, and other migrators are excluded. */
export type Purpose = 'read' | 'migrate';
