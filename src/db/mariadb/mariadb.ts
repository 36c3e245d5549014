import {
  type ConnectionConfig,
  createConnection,
  createPool,
  type Pool,
  type PoolConnection,
} from 'mariadb';
import { ConcurrencyLimiter } from '../concurrency-limiter.js';
import { type Database, questionMark, render, type Sql } from '../database.js';
import { withDeadline } from '../deadline.js';
import { unavailable } from '../failures.js';
import type { DatabaseServerOptions } from '../options.js';
import { buildTlsOptions } from '../tls.js';
import { type SqlExecutor, Transaction, withRetries } from '../transaction.js';
import { mariadbError, mariadbOpenError } from './errors.js';
import { patchMariadbHandshake } from './handshake.js';

/** The part of a connection or a pool that is used here. */
export interface MariadbConnection {
  query(text: string, values?: unknown): Promise<unknown>;
}

const inFlightMax = 2000;

const timeoutError = (): Error => unavailable('the database does not answer in time');

/**
 * A MariaDB (10.6 or later) or MySQL (8.4 or later) database, over a bounded pool. The two differ
 * in their statement limits (`buildInitSql`), but not for callers.
 *
 * `bigint`, `count(*)` and `sum` are read as `number`; an unsafe integer rejects the query. The
 * isolation level is read committed, the SQL mode is strict. At most 2,000 statements and
 * transactions are in flight, and each statement settles within `connectMs + statementMs` plus a
 * second.
 */
export class MariadbDatabase implements Database {
  readonly dialect: 'mariadb' | 'mysql';
  readonly #transactionMs: number;
  readonly #pool: Pool;
  readonly #limiter: ConcurrencyLimiter;
  #closing: Promise<void> | undefined;

  private constructor(options: DatabaseServerOptions, dialect: 'mariadb' | 'mysql') {
    const { connectMs, statementMs, connectionsMax } = options;
    this.dialect = dialect;
    this.#transactionMs = connectMs + statementMs;
    const transactionsMax = Math.max(1, connectionsMax - 1);
    this.#limiter = new ConcurrencyLimiter({
      inFlightMax,
      transactionsMax,
      waitMs: this.#transactionMs,
    });
    this.#pool = createPool({
      ...buildConnectionConfig(options),
      database: options.database,
      connectionLimit: connectionsMax,
      acquireTimeout: connectMs,
      idleTimeout: 600,
      minDelayValidation: 500,
      initSql: buildInitSql(options),
      // Longer than the limit in the database server, because this timeout closes the connection.
      socketTimeout: statementMs + 1000,
    });
  }

  /** Rejects when the database server cannot be reached. */
  static async open(options: DatabaseServerOptions): Promise<MariadbDatabase> {
    await checkReachable(options); // The pool would only report that it has no connection.
    const db = new MariadbDatabase(options, options.dialect === 'mysql' ? 'mysql' : 'mariadb');
    try {
      await db.query({ texts: ['select 1'], values: [] });
      return db;
    } catch (error) {
      await db.close();
      throw mariadbOpenError(options, error);
    }
  }

  query<Row extends object>(statement: Sql): Promise<Row[]> {
    return this.#limiter.run(() => withRetries(() => queryOn<Row>(this.#pool, statement)));
  }

  execute(statement: Sql): Promise<number> {
    return this.#limiter.run(() => withRetries(() => executeOn(this.#pool, statement)));
  }

  transaction<Result>(work: (tx: Database) => Promise<Result>): Promise<Result> {
    return this.#limiter.runTransaction(() => withRetries(() => this.#runTransaction(work)));
  }

  close(): Promise<void> {
    this.#closing ??= this.#limiter.close().then(() => this.#pool.end());
    return this.#closing;
  }

  async #runTransaction<Result>(work: (tx: Database) => Promise<Result>): Promise<Result> {
    const connection = await this.#pool.getConnection().catch((error: unknown) => {
      throw mariadbError('begin', error);
    });
    let isFinished = false;
    const executor: SqlExecutor = {
      query: (statement) =>
        isFinished ? Promise.reject(timeoutError()) : queryOn(connection, statement),
      execute: (statement) =>
        isFinished ? Promise.reject(timeoutError()) : executeOn(connection, statement),
    };
    try {
      // After a deadlock has rolled back, pipelined statements would commit under autocommit.
      await runCommand(connection, 'set autocommit = 0');
      const working = Transaction.run(this.dialect, executor, work);
      const result = await withDeadline(working, this.#transactionMs, timeoutError);
      isFinished = true;
      await runCommand(connection, 'commit');
      await releaseConnection(connection); // Never rejects, because the work is committed.
      return result;
    } catch (error) {
      isFinished = true; // `work` may still be running.
      try {
        await runCommand(connection, 'rollback');
        await releaseConnection(connection);
      } catch {
        connection.destroy(); // The database server then rolls back.
      }
      throw error;
    }
  }
}

/** Returns the connection to the pool in its initial state, or destroys it. Never rejects. */
async function releaseConnection(connection: PoolConnection): Promise<void> {
  try {
    await runCommand(connection, 'set autocommit = 1');
    await connection.release();
  } catch {
    connection.destroy();
  }
}

/** Opens a separate connection without statement limits. The caller ends it. */
export async function connectMariadb(
  options: DatabaseServerOptions,
  { withDatabase = true }: { withDatabase?: boolean } = {},
) {
  await patchMariadbHandshake(); // Covers the pool, which is created after a first connection.
  const target: { database?: string } = withDatabase ? { database: options.database } : {};
  const config = { ...buildConnectionConfig(options), ...target };
  return createConnection({ ...config, socketTimeout: 0, initSql: sessionSql });
}

/** Returns rows as plain objects. */
export async function queryOn<Row extends object>(
  connection: MariadbConnection,
  statement: Sql,
): Promise<Row[]> {
  return [...((await runStatement(connection, statement)) as Row[])]; // Without the package's `meta`.
}

/** Returns the number of matched rows, which the package counts by default (`foundRows`). */
export async function executeOn(connection: MariadbConnection, statement: Sql): Promise<number> {
  return (
    ((await runStatement(connection, statement)) as { affectedRows?: number }).affectedRows ?? 0
  );
}

async function runStatement(connection: MariadbConnection, statement: Sql): Promise<unknown> {
  const text = render(statement, questionMark);
  try {
    return await connection.query(text, statement.values.map(toDriverValue));
  } catch (error) {
    throw mariadbError(text, error);
  }
}

function runCommand(connection: MariadbConnection, text: string): Promise<unknown> {
  return runStatement(connection, { texts: [text], values: [] });
}

/** Converts bytes to a `Buffer`, because the package would send any other array as JSON. */
function toDriverValue(value: Sql['values'][number]): unknown {
  if (!(value instanceof Uint8Array)) return value;
  return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
}

async function checkReachable(options: DatabaseServerOptions): Promise<void> {
  try {
    await (await connectMariadb(options)).end();
  } catch (error) {
    throw mariadbOpenError(options, error);
  }
}

function buildConnectionConfig(options: DatabaseServerOptions): ConnectionConfig {
  const { host, port, username, password, ssl, connectMs } = options;
  return {
    host,
    port,
    user: username,
    password,
    ssl: buildTlsOptions(options),
    connectTimeout: connectMs,
    timezone: 'Z',
    charset: 'utf8mb4',
    bigIntAsNumber: true,
    insertIdAsNumber: true,
    decimalAsNumber: true,
    checkNumberRange: true,
    multipleStatements: false,
    permitLocalInfile: false,
    // Without TLS an attacker in the middle could substitute the key, but not on the loopback.
    allowPublicKeyRetrieval: ssl === false && /^(localhost|127\.[\d.]+|::1)$/.test(host),
  };
}

/**
 * Overrides configurations of the database server that truncate values or do not treat a backslash
 * as an escape.
 */
const sessionSql = [
  'set session transaction isolation level read committed',
  "set session sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
];

function buildInitSql({ dialect, statementMs, connectMs }: DatabaseServerOptions): string[] {
  const seconds = Math.ceil(statementMs / 1000);
  const limits = {
    mariadb: [
      `set session max_statement_time = ${statementMs / 1000}`,
      `set session idle_transaction_timeout = ${Math.ceil((connectMs + statementMs) / 1000)}`,
    ],
    // Applies to `select` only; `socketTimeout` limits other statements.
    mysql: [`set session max_execution_time = ${statementMs}`],
  };
  const statementLimits = dialect === 'mysql' ? limits.mysql : limits.mariadb;
  return [...sessionSql, `set session innodb_lock_wait_timeout = ${seconds}`, ...statementLimits];
}
