import type { Logger } from '../../logging/logger.js';
import type { Database } from '../database.js';
import { type DatabaseOptions, getDatabaseName } from '../options.js';
import type { SqlExecutor } from '../transaction.js';
import { migrationsByDialect } from './list.js';
import type { Migration } from './migration.js';
import {
  applyPending,
  dropTables,
  hasUsers,
  type MigrationOutcome,
  readStatus,
  type SchemaStatus,
} from './run.js';
import type { MigrationTarget, Purpose } from './target.js';

interface MigrateOptions {
  /** Migrations to use instead of those of the dialect; for tests. */
  readonly migrations?: readonly Migration[];
}

/**
 * Creates the database if it is missing and the account is allowed to, then applies pending
 * migrations. Never drops anything. Idempotent; may run concurrently.
 */
export function migrate(
  options: DatabaseOptions,
  { migrations = migrationsByDialect[options.dialect] }: MigrateOptions = {},
): Promise<MigrationOutcome> {
  const parts = { ...getClockOption(options), dialect: options.dialect, migrations };
  return withExclusiveTarget(options, (executor) => applyPending(executor, parts));
}

/** Returns applied and pending migrations; undefined without a database. Changes nothing. */
export async function readSchemaStatus(
  options: DatabaseOptions,
  { migrations = migrationsByDialect[options.dialect] }: MigrateOptions = {},
): Promise<SchemaStatus | undefined> {
  const target = await openTarget(options, 'read');
  if (target === undefined) return undefined;
  try {
    const { dialect } = options;
    return await target.read((executor) => readStatus(executor, { dialect, migrations }));
  } finally {
    await target.close();
  }
}

/**
 * Drops all tables of Herald and creates them again, empty.
 *
 * Rejects in production, and when there are users unless `yes` is the name of the database
 * (`getDatabaseName`).
 */
export async function reset(
  options: DatabaseOptions,
  { isProduction, yes }: { isProduction: boolean; yes: string | undefined },
): Promise<MigrationOutcome> {
  const { dialect } = options;
  if (isProduction) throw new Error('Cannot reset database: this is production');
  const name = getDatabaseName(options);
  const parts = { ...getClockOption(options), dialect, migrations: migrationsByDialect[dialect] };
  return withExclusiveTarget(options, async (executor) => {
    if (yes !== name && (await hasUsers(executor, dialect))) {
      throw new Error(`Cannot reset database: it has users; confirm with --yes=${name}`);
    }
    await dropTables(executor);
    return applyPending(executor, parts);
  });
}

/** Returns the schema version of an open database and the version this program needs. */
export async function readSchemaVersions(
  db: Database,
): Promise<{ version: number; latest: number }> {
  const { dialect } = db;
  const { version, latest } = await readStatus(db, {
    dialect,
    migrations: migrationsByDialect[dialect],
  });
  return { version, latest };
}

/**
 * Rejects when the schema is outdated (the message says what to run), or more than one step newer
 * than this program. Warns when it is one step newer.
 */
export async function requireSchema(db: Database, log: Logger): Promise<void> {
  const { version, latest } = await readSchemaVersions(db);
  if (version < latest) {
    throw new Error(`Cannot open database: it has schema ${version}, need ${latest}: npm run sync`);
  }
  warnIfNewer({ version, latest }, log);
}

/** Logs one warning when the schema is newer than this program. */
export function warnIfNewer(
  { version, latest }: Pick<SchemaStatus, 'version' | 'latest'>,
  log: Logger,
): void {
  if (version <= latest) return;
  const fields = { schemaVersion: version, knownVersion: latest };
  log.warn(fields, 'database schema is newer than this program');
}

async function withExclusiveTarget<Result>(
  options: DatabaseOptions,
  work: (executor: SqlExecutor) => Promise<Result>,
): Promise<Result> {
  const target = await openTarget(options, 'migrate');
  if (target === undefined)
    throw new Error('Cannot migrate database: it does not exist and cannot be created');
  try {
    return await target.runExclusively(work);
  } finally {
    await target.close();
  }
}

async function openTarget(
  options: DatabaseOptions,
  purpose: Purpose,
): Promise<MigrationTarget | undefined> {
  if (options.dialect === 'sqlite') {
    const { openSqliteTarget } = await import('../sqlite/migrator.js');
    return openSqliteTarget(options, purpose);
  }
  if (options.dialect === 'postgres') {
    const { openPostgresTarget } = await import('../postgres/migrator.js');
    return openPostgresTarget(options, purpose);
  }
  const { openMariadbTarget } = await import('../mariadb/migrator.js');
  return openMariadbTarget(options, purpose);
}

function getClockOption({ wallClock }: DatabaseOptions) {
  return wallClock === undefined ? {} : { wallClock };
}
