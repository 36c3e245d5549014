import {
  type Connection,
  type ConnectionConfig,
  createConnection,
  createPool,
  type Pool,
  type PoolConfig,
  type PoolConnection,
} from 'mariadb';
import { createBackgroundView, type DatabaseWithShares } from '../background.js';
import { ConcurrencyLimiter, inFlightMax, type Share } from '../concurrency-limiter.js';
import { type Database, questionMark, render, type Sql } from '../database.js';
import { withDeadline } from '../deadline.js';
import { unavailable } from '../failures.js';
import type { DatabaseServerOptions } from '../options.js';
import { buildTlsOptions } from '../tls.js';
import { type SqlExecutor, Transaction, withRetries } from '../transaction.js';
import { mariadbError, mariadbOpenError, needsNewConnections } from './errors.js';
import { assertFitsPacket } from './packet-size.js';
import { patchMariadb } from './patches.js';
import { MariadbPools } from './pools.js';
import { assertDialect, readDialect, type ServerDialect } from './server-dialect.js';
import {
  assertSessionState,
  buildSessionQuery,
  buildSessionSql,
  buildTransactionSql,
  sessionSql,
} from './session.js';

/** The part of a connection or a pool that is used here. */
export interface MariadbConnection {
  query(text: string, values?: unknown): Promise<unknown>;
}

const timeoutError = (): Error => unavailable('timeout');

/**
 * A MariaDB (10.6 or later) or MySQL (8.4 or later) database, over a bounded pool. Both behave alike for
 * callers, although their statement limits differ (`buildSessionSql`).
 *
 * `bigint`, `count(*)` and `sum` are read as `number`; an unsafe integer rejects the query. The state of
 * the session does not depend on the server's defaults (`session.ts`). The number of statements and
 * transactions in flight is limited (`inFlightMax`), and each statement settles within `connectMs +
 * statementMs` plus a second.
 */
export class MariadbDatabase implements DatabaseWithShares {
  readonly dialect: 'mariadb' | 'mysql';
  readonly background: Database;
  readonly #transactionMs: number;
  #packetBytesMax: number;
  readonly #pools: MariadbPools<Pool>;
  readonly #transactionSql: ReturnType<typeof buildTransactionSql>;
  readonly #limiter: ConcurrencyLimiter;
  #closing: Promise<void> | undefined;

  private constructor(options: DatabaseServerOptions, { dialect, packetBytesMax }: ServerFacts) {
    const { connectMs, statementMs, connectionsMax } = options;
    this.dialect = dialect;
    this.#transactionMs = connectMs + statementMs;
    this.#packetBytesMax = packetBytesMax;
    this.#transactionSql = buildTransactionSql(options);
    const transactionsMax = Math.max(1, connectionsMax - 1);
    this.#limiter = new ConcurrencyLimiter({
      inFlightMax,
      transactionsMax,
      waitMs: this.#transactionMs,
    });
    const poolConfig: PoolConfig = {
      ...buildConnectionConfig(options),
      database: options.database,
      connectionLimit: connectionsMax,
      acquireTimeout: connectMs,
      idleTimeout: 600,
      minDelayValidation: 500,
      initSql: buildSessionSql(options),
      // Longer than the limit in the database server, because this timeout closes the connection.
      socketTimeout: statementMs + 1000,
    };
    this.#pools = new MariadbPools(() => this.#openPool(poolConfig));
    this.background = createBackgroundView(this);
  }

  /**
   * Rejects when the database server cannot be reached, is of the other dialect, or does not keep the
   * session state.
   */
  static async open(options: DatabaseServerOptions): Promise<MariadbDatabase> {
    const server = await checkServer(options); // The pool would only report that it has no connection.
    const db = new MariadbDatabase(options, server);
    try {
      const query = toSql(buildSessionQuery(options.dialect));
      const [state] = await db.query(query).catch((cause: unknown) => {
        throw mariadbOpenError(options, cause);
      });
      assertSessionState(state);
      return db;
    } catch (error) {
      await db.close();
      throw error;
    }
  }

  async query<Row extends object>(statement: Sql, share?: Share): Promise<Row[]> {
    assertFitsPacket(statement, this.#packetBytesMax);
    return this.#run((pool) => queryOn<Row>(pool, statement), share);
  }

  async execute(statement: Sql, share?: Share): Promise<number> {
    assertFitsPacket(statement, this.#packetBytesMax);
    return this.#run((pool) => executeOn(pool, statement), share);
  }

  transaction<Result>(work: (tx: Database) => Promise<Result>, share?: Share): Promise<Result> {
    return this.#limiter.runTransaction(
      () => withRetries(() => this.#use((pool) => this.#runTransaction(pool, work))),
      share,
    );
  }

  close(): Promise<void> {
    this.#closing ??= this.#limiter.close().then(() => this.#pools.close());
    return this.#closing;
  }

  #openPool(config: PoolConfig): Pool {
    const pool = createPool(config);
    // A connection keeps the `max_allowed_packet` that the server had when the connection was opened.
    void readPacketBytesMax(pool).then(
      (bytes) => {
        this.#packetBytesMax = bytes;
      },
      () => undefined, // Keeps the value of the previous pool. Statements report that the server is unavailable.
    );
    return pool;
  }

  #run<Result>(work: (pool: Pool) => Promise<Result>, share?: Share): Promise<Result> {
    return this.#limiter.run(() => withRetries(() => this.#use(work)), share);
  }

  async #use<Result>(work: (pool: Pool) => Promise<Result>): Promise<Result> {
    try {
      return await this.#pools.use(work);
    } catch (error) {
      if (needsNewConnections(error)) this.#pools.replaceUnusable();
      throw error;
    }
  }

  async #runTransaction<Result>(
    pool: Pool,
    work: (tx: Database) => Promise<Result>,
  ): Promise<Result> {
    const connection = await pool.getConnection().catch((error: unknown) => {
      throw mariadbError('begin', error);
    });
    let isFinished = false;
    const assertCanRun = (statement: Sql) => {
      if (isFinished) throw timeoutError();
      assertFitsPacket(statement, this.#packetBytesMax);
    };
    const executor: SqlExecutor = {
      query: async <Row extends object>(statement: Sql) => {
        assertCanRun(statement);
        return queryOn<Row>(connection, statement);
      },
      execute: async (statement) => {
        assertCanRun(statement);
        return executeOn(connection, statement);
      },
    };
    try {
      await runCommand(connection, this.#transactionSql.before);
      const working = Transaction.run(this.dialect, executor, work);
      const result = await withDeadline(working, this.#transactionMs, timeoutError);
      isFinished = true;
      await runCommand(connection, 'commit');
      await this.#release(connection); // Never rejects, because the work is committed.
      return result;
    } catch (error) {
      isFinished = true; // `work` may still be running.
      try {
        await runCommand(connection, 'rollback');
        await this.#release(connection);
      } catch {
        connection.destroy(); // The database server then rolls back.
      }
      throw error;
    }
  }

  /** Returns the connection to the pool in its initial state, or destroys it. Never rejects. */
  async #release(connection: PoolConnection): Promise<void> {
    try {
      await runCommand(connection, this.#transactionSql.after);
      await connection.release();
    } catch {
      connection.destroy();
    }
  }
}

/** Opens a separate connection without statement limits. The caller ends it. */
export async function connectMariadb(
  options: DatabaseServerOptions,
  { withDatabase = true }: { withDatabase?: boolean } = {},
) {
  await patchMariadb(); // Covers the pool, which is created after a first connection.
  const target: { database?: string } = withDatabase ? { database: options.database } : {};
  const config = { ...buildConnectionConfig(options), ...target };
  return createConnection({ ...config, socketTimeout: 0, initSql: [...sessionSql] });
}

/** Returns rows as plain objects. */
export async function queryOn<Row extends object>(
  connection: MariadbConnection,
  statement: Sql,
): Promise<Row[]> {
  return [...((await runStatement(connection, statement)) as Row[])]; // Without the package's `meta`.
}

/**
 * Returns the number of matched rows. A server reports only changed rows by default; the package asks for matched
 * ones (its option `foundRows`).
 */
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
  return runStatement(connection, toSql(text));
}

export function toSql(text: string): Sql {
  return { texts: [text], values: [] };
}

/** Converts bytes to a `Buffer`, because the package would send any other array as JSON. */
function toDriverValue(value: Sql['values'][number]): unknown {
  if (!(value instanceof Uint8Array)) return value;
  return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
}

interface ServerFacts {
  readonly dialect: ServerDialect;
  /** Maximum size of a statement with its values. */
  readonly packetBytesMax: number;
}

async function readPacketBytesMax(connection: MariadbConnection): Promise<number> {
  const rows = await connection.query('select @@max_allowed_packet as bytes');
  return Number((rows as { bytes: number }[])[0]?.bytes);
}

/** Throws when the database server cannot be reached, or is not of the dialect of the settings. */
async function checkServer(options: DatabaseServerOptions): Promise<ServerFacts> {
  let facts: ServerFacts;
  try {
    const connection = await connectMariadb(options);
    try {
      facts = await withDeadline(readFacts(connection, options), options.connectMs, timeoutError);
      await connection.end();
    } finally {
      connection.destroy(); // Does nothing after `end`, which would wait for a pending answer.
    }
  } catch (error) {
    throw mariadbOpenError(options, error);
  }
  assertDialect(facts.dialect, options);
  return facts;
}

async function readFacts(
  connection: Connection,
  options: DatabaseServerOptions,
): Promise<ServerFacts> {
  const dialect = await readDialect(connection);
  if (dialect === options.dialect) {
    // Run here first, because the pool would not say why one of them fails.
    for (const text of buildSessionSql(options)) await connection.query(text);
  }
  return { dialect, packetBytesMax: await readPacketBytesMax(connection) };
}

function buildConnectionConfig(options: DatabaseServerOptions): ConnectionConfig {
  const { host, port, username, password, ssl, connectMs } = options;
  return {
    ...(host.startsWith('/') ? { socketPath: host } : { host, port }),
    user: username,
    // Missing in the package's types: see `patchMariadb`.
    password: password as string,
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
