import { createHash } from 'node:crypto';
import { sql } from '../database.js';
import {
  defaultLockMs,
  idleSecondsMax,
  lockedError,
  type MigrationTarget,
  type Purpose,
} from '../migrations/target.js';
import type { DatabaseServerOptions } from '../options.js';
import type { SqlExecutor } from '../transaction.js';
import {
  duplicateColumnErrno,
  mariadbOpenError,
  toNativeError,
  unknownDatabaseErrno,
} from './errors.js';
import { connectMariadb, executeOn, type MariadbConnection, queryOn, toSql } from './mariadb.js';
import { assertDialect, readDialect } from './server-dialect.js';
import { assertSessionState, buildSessionQuery } from './session.js';

/** How long DDL waits for a table. Later statements of running processes on that table wait behind it. */
const tableWaitSeconds = 5;

/**
 * Opens one connection without statement limits. The limits of the pool would end slow DDL and the wait for
 * the lock. Returns undefined when the database is missing and `purpose` is `read`.
 */
export async function openMariadbTarget(
  options: DatabaseServerOptions,
  purpose: Purpose,
): Promise<MigrationTarget | undefined> {
  const connection = await connect(options, purpose);
  if (connection === undefined) return undefined;
  if (purpose === 'migrate') await checkServer(connection, options);
  const executor = createExecutor(connection);
  const lockName = getLockName(options);
  const { lockMs = defaultLockMs } = options;
  return {
    read: (work) => work(executor),
    async runExclusively(work) {
      // Before the lock is taken: if the host of this process vanishes, its connection keeps the lock.
      await connection.query(
        `set session wait_timeout = ${idleSecondsMax}, session lock_wait_timeout = ${tableWaitSeconds}`,
      );
      const [row] = await executor.query<{ taken: number | null }>(
        sql`select get_lock(${lockName}, ${lockMs / 1000}) as taken`,
      );
      // `get_lock` returns 1 for the lock, 0 after the time limit, and null after an error.
      if (row?.taken !== 1) throw lockedError(lockMs);
      return work(executor); // The lock is released when the connection ends.
    },
    close: () => connection.end(),
  };
}

/** Ends the connection and throws if Herald could not start on this server. */
async function checkServer(
  connection: MariadbConnection & { destroy(): void },
  options: DatabaseServerOptions,
): Promise<void> {
  try {
    assertDialect(await readDialect(connection), options);
    const [state] = await queryOn(connection, toSql(buildSessionQuery(options.dialect)));
    assertSessionState(state);
  } catch (error) {
    connection.destroy();
    throw error;
  }
}

async function connect(options: DatabaseServerOptions, purpose: Purpose) {
  try {
    return await connectMariadb(options);
  } catch (error) {
    if (toNativeError(error).errno !== unknownDatabaseErrno) throw mariadbOpenError(options, error);
  }
  if (purpose === 'read') return undefined;
  try {
    await createDatabase(options);
    return await connectMariadb(options);
  } catch (error) {
    throw mariadbOpenError(options, error);
  }
}

async function createDatabase(options: DatabaseServerOptions): Promise<void> {
  const connection = await connectMariadb(options, { withDatabase: false });
  try {
    const escapedName = options.database.replaceAll('`', '``');
    await connection.query(
      `create database if not exists \`${escapedName}\` character set utf8mb4 collate utf8mb4_bin`,
    );
  } finally {
    await connection.end();
  }
}

/** Returns a lock name of at most 64 characters, the maximum of MySQL. */
function getLockName({ database }: DatabaseServerOptions): string {
  const name = `herald:migrate:${database}`;
  if (name.length <= 64) return name;
  return `herald:migrate:${createHash('sha256').update(database).digest('hex').slice(0, 40)}`;
}

function createExecutor(connection: MariadbConnection): SqlExecutor {
  return {
    query: (statement) => queryOn(connection, statement),
    async execute(statement) {
      try {
        return await executeOn(connection, statement);
      } catch (error) {
        // MySQL has no `add column if not exists`. A column that exists was added before a crash.
        const { cause } = error as Error;
        if (toNativeError(cause).errno === duplicateColumnErrno) return 0;
        throw error;
      }
    },
  };
}
