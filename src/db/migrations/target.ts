import type { SqlExecutor } from '../transaction.js';

/** A database whose schema is migrated or read, over a separate connection. */
export interface MigrationTarget {
  /** Runs `work` without a lock; it must not write. */
  read<Result>(work: (executor: SqlExecutor) => Promise<Result>): Promise<Result>;

  /**
   * Runs `work` while no other migrator runs, in one transaction where DDL can be rolled back.
   * The target must have been opened with the purpose `migrate`.
   */
  runExclusively<Result>(work: (executor: SqlExecutor) => Promise<Result>): Promise<Result>;

  close(): Promise<void>;
}

/** `migrate`: a missing database is created, and other migrators are excluded. */
export type Purpose = 'read' | 'migrate';
