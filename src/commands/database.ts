import type { Config } from '../config/config.js';
import type { Database } from '../db/database.js';
import { migrate, status } from '../db/migrations/migrate.js';
import { openDatabase } from '../db/open.js';
import { type DatabaseOptions, toDatabaseOptions } from '../db/options.js';
import type { Logger } from '../logging/logger.js';
import { CliSqliteDatabase } from './cli-sqlite-database.js';

/**
 * Does some work on users, sessions or API keys and closes the database again. The server may be
 * running meanwhile, in every dialect. The embedded database is made and migrated when need be.
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

/** While a server runs, the schema is up to date, and its lock on the file is not asked for. */
async function openCliDatabase(
  options: DatabaseOptions & { dialect: 'sqlite' },
): Promise<Database> {
  const schema = await status(options);
  if (schema === undefined || schema.version < schema.latest) await migrate(options);
  return CliSqliteDatabase.open(options.file);
}
