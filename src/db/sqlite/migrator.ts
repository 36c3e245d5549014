import { existsSync } from 'node:fs';
import type { Clock } from '../../clock.js';
import { questionMark, render, type Sql } from '../database.js';
import { statementError } from '../failures.js';
import { migrationsOf } from '../migrations/list.js';
import type { Migration } from '../migrations/migration.js';
import { applyPending, type MigrationOutcome } from '../migrations/run.js';
import type { MigrationTarget, Purpose } from '../migrations/target.js';
import type { SqliteOptions } from '../options.js';
import type { Session } from '../transaction.js';
import { FileLock, openReader, openWriter, prepareFile } from './file.js';
import { loadSqlite, type SqliteConnection } from './load.js';

/** Brings the schema up to date on a connection that its caller opened for writing. */
export function migrateConnection(
  connection: SqliteConnection,
  {
    migrations = migrationsOf.sqlite,
    ...timing
  }: { migrations?: readonly Migration[]; clock?: Clock } = {},
): Promise<MigrationOutcome> {
  return inTransaction(connection, (session) =>
    applyPending(session, { dialect: 'sqlite', migrations, ...timing }),
  );
}

/**
 * To look needs no lock; undefined when there is no file. To change rejects while another process
 * has the file open, which has migrated it already.
 */
export async function openSqliteTarget(
  { file, clock, lockMs = 5000 }: SqliteOptions,
  purpose: Purpose,
): Promise<MigrationTarget | undefined> {
  const Driver = await loadSqlite();
  if (purpose === 'look') {
    return existsSync(file) ? targetOn(openReader(Driver, file), () => {}) : undefined;
  }
  const path = prepareFile(file);
  const timing = clock === undefined ? {} : { clock };
  const lock = await FileLock.take(Driver, path, { waitMs: lockMs, ...timing });
  try {
    return targetOn(openWriter(Driver, path), () => lock.release());
  } catch (error) {
    lock.release();
    throw error;
  }
}

function targetOn(connection: SqliteConnection, onClosed: () => void): MigrationTarget {
  return {
    reading: (work) => work(sessionOn(connection)),
    exclusively: (work) => inTransaction(connection, work),
    async close() {
      connection.close();
      onClosed();
    },
  };
}

async function inTransaction<Result>(
  connection: SqliteConnection,
  work: (session: Session) => Promise<Result>,
): Promise<Result> {
  connection.exec('begin exclusive');
  try {
    const result = await work(sessionOn(connection));
    connection.exec('commit');
    return result;
  } catch (error) {
    connection.exec('rollback');
    throw error;
  }
}

function sessionOn(connection: SqliteConnection): Session {
  const prepared = <Result>(
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
      prepared(statement, (ready, values) => ready.all(...values) as Row[]),
    execute: async (statement) =>
      prepared(statement, (ready, values) => Number(ready.run(...values).changes)),
  };
}
