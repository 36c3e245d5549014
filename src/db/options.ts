import type { Clock } from '../clock.js';
import type { Config } from '../config/config.js';
import type { Logger } from '../logging/logger.js';
import { createRotatedFile, type RotatableText } from './rotated-file.js';

export type DatabaseOptions = SqliteOptions | DatabaseServerOptions;

export interface SqliteOptions {
  readonly dialect: 'sqlite';
  /** Path of the database file. A missing folder is created. */
  readonly file: string;
  /**
   * Deadline of a read, of a write, of the work of a transaction, and of its commit, because each occupies
   * the only reader or the only writer. Default 15,000.
   */
  readonly deadlineMs?: number;
  /**
   * How long to wait until another process, which may be shutting down, releases the file. Default
   * 2,000 when the database is opened, 5,000 when a command migrates or resets it.
   */
  readonly lockMs?: number;
  readonly log: Logger;
  readonly wallClock?: Clock;
}

export interface DatabaseServerOptions {
  readonly dialect: 'postgres' | 'mariadb' | 'mysql';
  /** A host name, an IP address, or (PostgreSQL) the folder of a Unix socket. */
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly username: string;
  readonly password: RotatableText;
  /** True: TLS with a checked certificate. With `ca` (PEM), only that authority is trusted. */
  readonly ssl: boolean | { readonly ca: RotatableText };
  readonly connectionsMax: number;
  /**
   * Deadline for opening a connection. On MariaDB and MySQL also for waiting for a free connection of the
   * pool; on PostgreSQL a statement waits at most `connectMs + statementMs`.
   */
  readonly connectMs: number;
  /**
   * Limit of one statement in the database server. MySQL applies it only to `select`. PostgreSQL behind a
   * pooler (`prepare: false`) does not apply it. If the server does not respond, Herald itself rejects the
   * statement: on PostgreSQL after `connectMs + statementMs`, on MariaDB and MySQL `statementMs` plus a
   * second after the last byte arrived.
   */
  readonly statementMs: number;
  /** How long a command that migrates or resets waits for another such command. Default 30,000. */
  readonly lockMs?: number;
  /** PostgreSQL: whether statements stay prepared. False behind a transaction pooler. */
  readonly prepare: boolean;
  readonly log: Logger;
  readonly wallClock?: Clock;
}

/**
 * Returns the name of the database, which `npm run sync -- --reset --yes=<database>` must repeat; for SQLite,
 * the file name.
 */
export function getDatabaseName(options: DatabaseOptions): string {
  if (options.dialect !== 'sqlite') return options.database;
  return options.file.split(/[\\/]/).at(-1) ?? options.file;
}

/**
 * Converts the configuration to options for `openDatabase`. The files with the password and the CA are read
 * again for each connection.
 */
export function toDatabaseOptions(
  { database }: Pick<Config, 'database'>,
  log: Logger,
): DatabaseOptions {
  const { dialect, file, server } = database;
  if (dialect === 'sqlite') return { dialect, file, log };
  const { passwordFile, caFile, ca, ssl, ...serverOptions } = server;
  const toRotatable = (
    setting: string,
    content: string,
    path: string | undefined,
  ): RotatableText =>
    path === undefined ? content : createRotatedFile(path, { content, setting, log });
  return {
    ...serverOptions,
    dialect,
    password: toRotatable('DB_PASSWORD_FILE', server.password, passwordFile),
    ssl: ssl && ca !== undefined ? { ca: toRotatable('DB_SSL_CA_FILE', ca, caFile) } : ssl,
    log,
  };
}
