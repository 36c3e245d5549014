import type { Clock } from '../clock.js';
import type { Config } from '../config/config.js';
import type { Database } from '../db/database.js';
import { DatabaseClock } from '../db/database-clock.js';
import { migrate, readSchemaStatus, warnIfNewer } from '../db/migrations/migrate.js';
import { openDatabase } from '../db/open.js';
import { type DatabaseOptions, toDatabaseOptions } from '../db/options.js';
import type { Logger } from '../logging/logger.js';
import { CliSqliteDatabase } from './cli-sqlite-database.js';
import { printError } from './command.js';

/**
 * Opens the database, runs `work`, and closes the database. Because a Herald server may use it at the
 * same time, `work` may change only users, sessions and API keys, and append control entries. The
 * embedded database is created and migrated if necessary.
 *
 * The second argument of `work` returns the time of the database (see `DatabaseClock`). Prints a warning
 * to standard error if the local clock differs by more than 5 s from the database's.
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
    if (clock.isLocalClockWrong) printError(describeOffset(clock.offsetMs));
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
 * Opens the embedded database. Migrates only if the schema is outdated, because a migration needs the
 * lock that a running server holds. A running server of this version has migrated already; while an
 * older one runs, the command fails.
 */
async function openCliDatabase(
  options: DatabaseOptions & { dialect: 'sqlite' },
): Promise<Database> {
  const schema = await readSchemaStatus(options);
  if (schema === undefined || schema.version < schema.latest) await migrate(options);
  else warnIfNewer(schema, options.log);
  return CliSqliteDatabase.open(options.file);
}
