import type { Dialect, Sql } from '../../../src/db/database.js';
import { connectMariadb } from '../../../src/db/mariadb/mariadb.js';
import type { DatabaseServerOptions } from '../../../src/db/options.js';
import { connectPostgres } from '../../../src/db/postgres/client.js';
import { getCurrentText } from '../../../src/db/rotated-file.js';
import { recordedLog } from '../recording/record.js';

export type ServerDialect = Exclude<Dialect, 'sqlite'>;

/** A database server to test against, with the options of a database that only the caller uses. */
export interface TestServer {
  /** Options for `migrate` and `openDatabase`. The database does not exist yet. */
  readonly options: DatabaseServerOptions;
  /** Runs the text unchanged on a new connection, which uses neither the database nor its pool. */
  administer(text: string): Promise<unknown>;
  /** Drops the database if it exists. */
  drop(): Promise<void>;
}

const defaults: Readonly<Record<ServerDialect, string>> = {
  postgres: 'postgres://postgres@127.0.0.1:5432',
  mariadb: 'mariadb://root@127.0.0.1:3306',
  mysql: 'mysql://root@127.0.0.1:3306',
};

let databaseCount = 0;

/**
 * Finds the database server of `TEST_POSTGRES_URL`, `TEST_MARIADB_URL` or `TEST_MYSQL_URL`, or else the one
 * on the standard port of this machine. When there is none, returns the reason, as text for `skip`.
 */
export async function findServer(dialect: ServerDialect): Promise<TestServer | string> {
  const setting = `TEST_${dialect.toUpperCase()}_URL`;
  const url = new URL(process.env[setting] || defaults[dialect]);
  const server = serverAt(dialect, url);
  try {
    const version = JSON.stringify(await server.administer('select version() as version'));
    if (dialect !== 'postgres' && version.includes('MariaDB') !== (dialect === 'mariadb')) {
      return `the server on ${url.host} is not ${dialect}: set ${setting}`;
    }
  } catch {
    return `no server on ${url.host}: set ${setting}`;
  }
  return server;
}

/** Returns the database server at a URL without connecting to it. */
export function serverAt(dialect: ServerDialect, url: URL): TestServer {
  const options = buildOptions(dialect, url);
  const administer = (text: string) => runAdminStatement(options, text);
  return {
    options,
    administer,
    async drop() {
      const force = dialect === 'postgres' ? ' with (force)' : '';
      await administer(`drop database if exists ${options.database}${force}`);
    },
  };
}

/** Returns the settings that make Herald use the database of these options. */
export function databaseEnv(options: DatabaseServerOptions): Record<string, string> {
  return {
    DB_DIALECT: options.dialect,
    DB_HOST: options.host,
    DB_PORT: String(options.port),
    DB_NAME: options.database,
    DB_USERNAME: options.username,
    DB_PASSWORD: getCurrentText(options.password),
    DB_PREPARE: String(options.prepare),
  };
}

function buildOptions(dialect: ServerDialect, url: URL): DatabaseServerOptions {
  databaseCount += 1;
  return {
    dialect,
    host: url.hostname,
    port: Number(url.port) || (dialect === 'postgres' ? 5432 : 3306),
    database: `herald_test_${process.pid}_${databaseCount}`,
    username: decodeURIComponent(url.username),
    password: decodeURIComponent(url.password),
    ssl: false,
    connectionsMax: 4,
    // Long, because a machine that stalls for seconds must not look like an unresponsive database server.
    connectMs: 20_000,
    statementMs: 30_000,
    prepare: true,
    log: recordedLog,
  };
}

async function runAdminStatement(options: DatabaseServerOptions, text: string): Promise<unknown> {
  if (options.dialect === 'postgres') {
    const client = connectPostgres(options, { database: 'postgres', max: 1, hasTimeouts: false });
    try {
      return [...(await client.unsafe(text))];
    } finally {
      await client.end({ timeout: 1 });
    }
  }
  const connection = await connectMariadb(options, { withDatabase: false });
  try {
    return await connection.query(text);
  } finally {
    await connection.end();
  }
}

/** Returns a statement with this text and no values. */
export function rawSql(text: string): Sql {
  return { texts: [text], values: [] };
}
