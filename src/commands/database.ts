import type { Config } from '../config/config.js';
import type { Database } from '../db/database.js';
import { migrate, status, warnIfNewer } from '../db/migrations/migrate.js';
import { openDatabase } from '../db/open.js';
import { type DatabaseOptions, toDatabaseOptions } from '../db/options.js';
import type { Logger } from '../logging/logger.js';
import { CliSqliteDatabase } from './cli-sqlite-database.js';

/**
 * Runs `work` on users, sessions or API keys, and closes the database. A Herald server may use the
 * database at the same time, in every dialect. The embedded database is created and migrated if
 * necessary.
 */
export async function withDatabase<Result>(
  config: Pick<Config, 'database'>,
  log: Logger,
  work: (db: Database) => Promise<Result>,
): Promise<Result> {
  const options = toDatabaseOptions(config, log);
  const db =
    options.dialect === 'sqlite' ? await openCliDatabase(options) : await openDatabase(options);
  try {
    return await work(db);
  } finally {
    await db.close();
  }
}

/**
 * Migrates only an outdated schema, because a migration needs the lock that a running server holds.
 * While a server runs, the schema is current.
 */
async function openCliDatabase(
  options: DatabaseOptions & { dialect: 'sqlite' },
): Promise<Database> {
  const schema = await status(options);
  if (schema === undefined || schema.version < schema.latest) await migrate(options);
  else warnIfNewer(schema, options.log);
  return CliSqliteDatabase.open(options.file);
}
