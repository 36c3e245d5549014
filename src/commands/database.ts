import type { Config } from '../config/config.js';
import type { Database } from '../db/database.js';
import { migrate, status } from '../db/migrations/migrate.js';
import { openDatabase } from '../db/open.js';
import { type DatabaseOptions, databaseOptions } from '../db/options.js';
import type { Log } from '../logging/log.js';
import { SqliteGuest } from './cli-sqlite-database.js';

/**
 * Does some work on users, sessions or API keys and closes the database again. The server may be
 * running meanwhile, in every dialect. The embedded database is made and migrated when need be.
 */
export async function withDatabase<Result>(
  config: Pick<Config, 'database'>,
  log: Log,
  work: (db: Database) => Promise<Result>,
): Promise<Result> {
  const options = databaseOptions(config, log);
  const db = options.dialect === 'sqlite' ? await openGuest(options) : await openDatabase(options);
  try {
    return await work(db);
  } finally {
    await db.close();
  }
}

/** While a server runs, the schema is up to date, and its lock on the file is not asked for. */
async function openGuest(options: DatabaseOptions & { dialect: 'sqlite' }): Promise<Database> {
  const schema = await status(options);
  if (schema === undefined || schema.version < schema.latest) await migrate(options);
  return SqliteGuest.open(options.file);
}
