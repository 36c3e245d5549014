import { dollar, render, type Sql } from '../database.js';
import {
  defaultLockMs,
  idleSecondsMax,
  lockedError,
  type MigrationTarget,
  type Purpose,
} from '../migrations/target.js';
import type { DatabaseServerOptions } from '../options.js';
import type { SqlExecutor } from '../transaction.js';
import { connectPostgres, type PostgresClient } from './client.js';
import { getErrorCode, isConnectionLost, postgresError, postgresOpenError } from './errors.js';
import { assertSessionState, sessionQuery } from './session.js';

const unknownDatabaseCode = '3D000';
const duplicateDatabaseCode = '42P04';
const lockTimeoutCode = '55P03';
const lockKey = 4_711_000_017; // Arbitrary, but the same in every version of Herald.

/**
 * Opens one connection without statement timeouts, because DDL may be slow. Returns undefined
 * when the database is missing and `purpose` is `read`.
 */
export async function openPostgresTarget(
  options: DatabaseServerOptions,
  purpose: Purpose,
): Promise<MigrationTarget | undefined> {
  const client = connectPostgres(options, { max: 1, hasTimeouts: false });
  let state: object | undefined;
  try {
    [state] = await client.unsafe<object[]>(sessionQuery);
  } catch (error) {
    await client.end({ timeout: 0 });
    if (getErrorCode(error) !== unknownDatabaseCode) throw postgresOpenError(options, error);
    if (purpose === 'read') return undefined;
    await createDatabase(options);
    return openPostgresTarget(options, purpose);
  }
  if (purpose === 'migrate') await checkState(client, state, options);
  return {
    read: (work) => work(createExecutor(client)),
    runExclusively: (work) =>
      runTransaction(client, async (executor) => {
        await acquireLock(executor, options);
        return work(executor);
      }),
    close: () => client.end({ timeout: 1 }),
  };
}

/** Ends the client and throws if Herald could not start on this database. */
async function checkState(
  client: PostgresClient,
  state: object | undefined,
  options: DatabaseServerOptions,
): Promise<void> {
  try {
    assertSessionState(state, options);
  } catch (error) {
    await client.end({ timeout: 0 });
    throw error;
  }
}

async function runTransaction<Result>(
  client: PostgresClient,
  work: (executor: SqlExecutor) => Promise<Result>,
): Promise<Result> {
  let hasLostConnection = false;
  const onLost = (): void => {
    hasLostConnection = true;
  };
  let result: { readonly value: Result } | undefined;
  try {
    await client.begin(async (transaction) => {
      try {
        result = { value: await work(createExecutor(transaction, onLost)) };
      } catch (error) {
        // The package would send a rollback on the closed connection, which ends the process. While
        // this promise is pending, `begin` rejects as soon as it detects the closed connection.
        if (hasLostConnection) await new Promise<never>(() => {});
        throw error;
      }
    });
  } catch (cause) {
    if (!hasLostConnection && !isConnectionLost(cause)) throw cause;
    throw new Error('Cannot migrate: the connection was lost: run npm run sync again', { cause });
  }
  if (result === undefined) throw new Error('Cannot migrate: the transaction did not run');
  return result.value;
}

async function createDatabase(options: DatabaseServerOptions): Promise<void> {
  const client = connectPostgres(options, { database: 'postgres', max: 1, hasTimeouts: false });
  try {
    const name = options.database.replaceAll('"', '""');
    await client.unsafe(
      `create database "${name}" template template0 encoding 'UTF8' lc_collate 'C' lc_ctype 'C'`,
    );
  } catch (error) {
    // Another migrator created it first. Concurrent creation may also fail in the catalog (23505).
    if (![duplicateDatabaseCode, '23505'].includes(getErrorCode(error)))
      throw postgresOpenError(options, error);
  } finally {
    await client.end({ timeout: 1 });
  }
}

/**
 * Acquires the migration lock. The end of the transaction or of the connection releases it. If the host of
 * this process vanishes, the database server ends the transaction, because publishers may wait for its locks.
 */
async function acquireLock(
  executor: SqlExecutor,
  { lockMs = defaultLockMs }: DatabaseServerOptions,
): Promise<void> {
  const execute = (text: string) => executor.execute({ texts: [text], values: [] });
  await execute(`set local statement_timeout = 0`);
  // Not `set local`, which fails before PostgreSQL 17, where the setting does not exist.
  await execute(
    `select set_config(name, '0', true) from pg_settings where name = 'transaction_timeout'`,
  );
  await execute(`set local idle_in_transaction_session_timeout = '${idleSecondsMax}s'`);
  await execute(`set local lock_timeout = ${lockMs}`);
  try {
    await execute(`select pg_advisory_xact_lock(${lockKey})`);
  } catch (error) {
    if (getErrorCode((error as Error).cause) !== lockTimeoutCode) throw error;
    throw lockedError(lockMs);
  }
  await execute(`set local lock_timeout = '5s'`);
}

function createExecutor(
  client: Pick<PostgresClient, 'unsafe'>,
  onLost: () => void = () => {},
): SqlExecutor {
  const send = async (statement: Sql) => {
    const text = render(statement, dollar);
    try {
      return await client.unsafe<object[]>(text, statement.values as (string | number)[]);
    } catch (error) {
      if (isConnectionLost(error)) onLost();
      throw postgresError(text, error);
    }
  };
  return {
    query: async <Row extends object>(statement: Sql) => [...(await send(statement))] as Row[],
    execute: async (statement) => (await send(statement)).count ?? 0,
  };
}
