import type { Database } from './database.js';
import { requireSchema } from './migrations/migrate.js';
import type { DatabaseOptions } from './options.js';

/**
 * Opens the database of the options' dialect, ready to use.
 *
 * The embedded one migrates itself first. The others reject when their schema is old, naming
 * `npm run sync`, and when the server cannot be reached: a system without its database should not
 * start. Drivers are loaded only when they are needed.
 */
export async function openDatabase(options: DatabaseOptions): Promise<Database> {
  if (options.dialect === 'sqlite') {
    const { SqliteDatabase } = await import('./sqlite/sqlite.js');
    return SqliteDatabase.open(options);
  }
  const db = await openServer(options);
  try {
    await requireSchema(db);
    return db;
  } catch (error) {
    await db.close();
    throw error;
  }
}

async function openServer(
  options: Exclude<DatabaseOptions, { dialect: 'sqlite' }>,
): Promise<Database> {
  if (options.dialect === 'postgres') {
    const { PostgresDatabase } = await import('./postgres/postgres.js');
    return PostgresDatabase.open(options);
  }
  const { MariadbDatabase } = await import('./mariadb/mariadb.js');
  return MariadbDatabase.open(options);
}
