import type { Clock } from '../clock.js';
import type { Config } from '../config/config.js';
import type { Logger } from '../logging/logger.js';

export type DatabaseOptions = SqliteOptions | ServerOptions;

export interface SqliteOptions {
  readonly dialect: 'sqlite';
  /** Its folder is made when it is missing. */
  readonly file: string;
  /** For a whole transaction, which has the one writer to itself. Default 15,000. */
  readonly transactionMs?: number;
  /** To wait for another process that has the file, and may be on its way out. Default 2,000. */
  readonly lockMs?: number;
  readonly log: Logger;
  readonly wallClock?: Clock;
}

export interface ServerOptions {
  readonly dialect: 'postgres' | 'mariadb' | 'mysql';
  /** A name, an address, or (PostgreSQL) the folder of a socket. */
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly username: string;
  readonly password: string;
  /** True: encrypted, and the certificate is checked. With `ca` (PEM) against this authority only. */
  readonly ssl: boolean | { readonly ca: string };
  readonly connectionsMax: number;
  /** To open a connection, and to wait for a free one. */
  readonly connectMs: number;
  /** For one statement; the server ends it, and if even that does not come, we do. */
  readonly statementMs: number;
  /** PostgreSQL: statements are kept prepared. False behind a pooler by transaction. */
  readonly prepare: boolean;
  readonly log: Logger;
  readonly wallClock?: Clock;
}

/** What `sync -- --reset --yes=…` must be given: of the embedded database the name of its file. */
export function getDatabaseName(options: DatabaseOptions): string {
  if (options.dialect !== 'sqlite') return options.database;
  return options.file.split(/[\\/]/).at(-1) ?? options.file;
}

/** What the settings say about the database. */
export function toDatabaseOptions(
  { database }: Pick<Config, 'database'>,
  log: Logger,
): DatabaseOptions {
  const { dialect, file, server } = database;
  if (dialect === 'sqlite') return { dialect, file, log };
  const { ca, ssl, ...rest } = server;
  return { ...rest, dialect, ssl: ssl && ca !== undefined ? { ca } : ssl, log };
}
