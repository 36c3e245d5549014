import type { Database } from './database.js';
import { requireSchema } from './migrations/migrate.js';
import type { DatabaseOptions } from './options.js';

/**
 * Opens the database of the options' dialect, ready to use.
 *
 * SQLite is migrated first. Other dialects reject when the schema is outdated (the message says to
 * run `npm run sync`), and when the database server cannot be reached, so that Herald does not
 * start without its database. A schema one step newer is accepted with a warning. Drivers are
 * loaded on demand.
 */
export async function openDatabase(options: DatabaseOptions): Promise<Database> {
  if (options.dialect === 'sqlite') {
    const { SqliteDatabase } = await import('./sqlite/sqlite.js');
    return SqliteDatabase.open(options);
  }
  const db = await openServerDatabase(options);
  try {
    await requireSchema(db, options.log);
    return db;
  } catch (error) {
    await db.close();
    throw error;
  }
}

async function openServerDatabase(
  options: Exclude<DatabaseOptions, { dialect: 'sqlite' }>,
): Promise<Database> {
  if (options.dialect === 'postgres') {
    const { PostgresDatabase } = await import('./postgres/postgres.js');
    return PostgresDatabase.open(options);
  }
  const { MariadbDatabase } = await import('./mariadb/mariadb.js');
  return MariadbDatabase.open(options);
}
