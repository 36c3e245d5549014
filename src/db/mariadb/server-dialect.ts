import type { DatabaseServerOptions } from '../options.js';
import { toNativeError } from './errors.js';

export type ServerDialect = 'mariadb' | 'mysql';

const unknownVariableErrno = 1193;

/**
 * Detects the dialect by a variable that only MariaDB has. The version is not reliable, because proxies and the
 * server option `--version` change it.
 */
export async function readDialect(connection: {
  query(text: string): Promise<unknown>;
}): Promise<ServerDialect> {
  try {
    await connection.query('select @@session.max_statement_time');
    return 'mariadb';
  } catch (error) {
    if (toNativeError(error).errno === unknownVariableErrno) return 'mysql';
    throw error;
  }
}

/** Throws when the server is of another dialect than the settings say. */
export function assertDialect(
  actual: ServerDialect,
  { dialect }: Pick<DatabaseServerOptions, 'dialect'>,
): void {
  if (actual === dialect) return;
  const name = actual === 'mariadb' ? 'MariaDB' : 'MySQL';
  const cure = `set DB_DIALECT=${actual}, not ${dialect}`;
  throw new Error(`Cannot open database: the server is ${name}: ${cure}`);
}
