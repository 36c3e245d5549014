import { existsSync } from 'node:fs';
import type { Clock } from '../../clock.js';
import { questionMark, render, type Sql } from '../database.js';
import { statementError } from '../failures.js';
import { migrationsByDialect } from '../migrations/list.js';
import type { Migration } from '../migrations/migration.js';
import { applyPending, type MigrationOutcome } from '../migrations/run.js';
import type { MigrationTarget, Purpose } from '../migrations/target.js';
import type { SqliteOptions } from '../options.js';
import type { SqlExecutor } from '../transaction.js';
import { FileLock, openReader, openWriter, prepareFile } from './file.js';
import { loadSqlite, type SqliteConnection } from './load.js';

/** Brings the schema up to date on a connection that its caller opened for writing. */
export function migrateConnection(
  connection: SqliteConnection,
  {
    migrations = migrationsByDialect.sqlite,
    ...clockOption
  }: { migrations?: readonly Migration[]; wallClock?: Clock } = {},
): Promise<MigrationOutcome> {
  return inTransaction(connection, (executor) =>
    applyPending(executor, { dialect: 'sqlite', migrations, ...clockOption }),
  );
}

/**
 * Opens the file to read or migrate its schema. The purpose `read` needs no lock, and returns
 * undefined if there is no file. The purpose `migrate` rejects if another process still has the file open
 * after `lockMs`; that process migrated the file when it opened it.
 */
export async function openSqliteTarget(
  { file, wallClock, lockMs = 5000 }: SqliteOptions,
  purpose: Purpose,
): Promise<MigrationTarget | undefined> {
  const Driver = await loadSqlite();
  if (purpose === 'read') {
    return existsSync(file) ? createTarget(openReader(Driver, file), () => {}) : undefined;
  }
  const path = prepareFile(file);
  const clockOption = wallClock === undefined ? {} : { wallClock };
  const lock = await FileLock.acquire(Driver, path, { waitMs: lockMs, ...clockOption });
  try {
    return createTarget(openWriter(Driver, path), () => lock.release());
  } catch (error) {
    lock.release();
    throw error;
  }
}

function createTarget(connection: SqliteConnection, onClosed: () => void): MigrationTarget {
  return {
    read: (work) => work(createExecutor(connection)),
    runExclusively: (work) => inTransaction(connection, work),
    async close() {
      connection.close();
      onClosed();
    },
  };
}

async function inTransaction<Result>(
  connection: SqliteConnection,
  work: (executor: SqlExecutor) => Promise<Result>,
): Promise<Result> {
  connection.exec('begin exclusive');
  try {
    const result = await work(createExecutor(connection));
    connection.exec('commit');
    return result;
  } catch (error) {
    connection.exec('rollback');
    throw error;
  }
}

function createExecutor(connection: SqliteConnection): SqlExecutor {
  const runPrepared = <Result>(
    { values, ...rest }: Sql,
    run: (statement: ReturnType<SqliteConnection['prepare']>, values: Sql['values']) => Result,
  ): Result => {
    const text = render({ values, ...rest }, questionMark);
    try {
      return run(connection.prepare(text), values);
    } catch (cause) {
      throw statementError(text, cause);
    }
  };
  return {
    query: async <Row extends object>(statement: Sql) =>
      runPrepared(statement, (prepared, values) => prepared.all(...values) as Row[]),
    execute: async (statement) =>
      runPrepared(statement, (prepared, values) => Number(prepared.run(...values).changes)),
  };
}
