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

/** How long a migrator on a database server waits by default for the lock that excludes others. */
export const defaultLockMs = 30_000;

/** After this time a database server ends a migrator whose host has vanished; it is never idle for long. */
export const idleSecondsMax = 60;

/** Creates the error for a lock that another migrator has held for too long. */
export function lockedError(lockMs: number): Error {
  return new Error(
    `Cannot migrate: another npm run sync has held the lock for ${lockMs / 1000} s; if its host has vanished, the database server releases the lock within ${idleSecondsMax} s`,
  );
}
