import type { Clock } from '../clock.js';
import type { Config } from '../config/config.js';
import type { Database } from '../db/database.js';
import { DatabaseClock } from '../db/database-clock.js';
import { migrate, status, warnIfNewer } from '../db/migrations/migrate.js';
import { openDatabase } from '../db/open.js';
import { type DatabaseOptions, toDatabaseOptions } from '../db/options.js';
import type { Logger } from '../logging/logger.js';
import { CliSqliteDatabase } from './cli-sqlite-database.js';
import { printError } from './command.js';

/**
 * Runs `work` on users, sessions or API keys, and closes the database. A Herald server may use the
 * database at the same time, in every dialect. The embedded database is created and migrated if
 * necessary.
 *
 * The second argument of `work` is the time of the database (see `DatabaseClock`). If the local clock
 * is off, a warning is printed to standard error.
 */
export async function withDatabase<Result>(
  config: Pick<Config, 'database'>,
  log: Logger,
  work: (db: Database, databaseClock: Clock) => Promise<Result>,
  localClock: Clock = Date.now,
): Promise<Result> {
  const options = toDatabaseOptions(config, log);
  const db =
    options.dialect === 'sqlite' ? await openCliDatabase(options) : await openDatabase(options);
  try {
    const clock = await DatabaseClock.open({ db, log, wallClock: localClock });
    clock.close(); // One measurement is enough for a command.
    if (clock.isOff) printError(describeOffset(clock.offsetMs));
    return await work(db, () => clock.now());
  } finally {
    await db.close();
  }
}

function describeOffset(offsetMs: number): string {
  const seconds = Math.round(Math.abs(offsetMs) / 1000);
  const direction = offsetMs > 0 ? 'ahead of' : 'behind';
  return `The clock of this machine is ${seconds} s ${direction} the database; using the database time`;
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
