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
  /** For tests; by default those of the dialect. */
  readonly migrations?: readonly Migration[];
}

/**
 * Makes the database if it is missing and this account may, then applies pending migrations. Never
 * drops anything. Running it twice, or two at once, is fine.
 */
export function migrate(
  options: DatabaseOptions,
  { migrations = migrationsByDialect[options.dialect] }: MigrateOptions = {},
): Promise<MigrationOutcome> {
  const parts = { ...getClockOption(options), dialect: options.dialect, migrations };
  return withExclusiveTarget(options, (executor) => applyPending(executor, parts));
}

/** What `migrate` has done and would do; changes nothing. Undefined: there is no such database. */
export async function status(
  options: DatabaseOptions,
  { migrations = migrationsByDialect[options.dialect] }: MigrateOptions = {},
): Promise<SchemaStatus | undefined> {
  const target = await openTarget(options, 'look');
  if (target === undefined) return undefined;
  try {
    const { dialect } = options;
    return await target.read((executor) => readStatus(executor, { dialect, migrations }));
  } finally {
    await target.close();
  }
}

/**
 * Drops every table of Herald and makes them again, empty.
 *
 * Refused in production, and when there are users unless `yes` is the name of the database
 * (`databaseName`).
 */
export async function reset(
  options: DatabaseOptions,
  { production, yes }: { production: boolean; yes: string | undefined },
): Promise<MigrationOutcome> {
  const { dialect } = options;
  if (production) throw new Error('Cannot reset database: this is production');
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

/** How far the schema of an open database is, and how far this program needs it. */
export async function schemaState(db: Database): Promise<{ version: number; latest: number }> {
  const { dialect } = db;
  const { version, latest } = await readStatus(db, {
    dialect,
    migrations: migrationsByDialect[dialect],
  });
  return { version, latest };
}

/** Rejects, and names the command that helps, when the schema is not that of this program. */
export async function requireSchema(db: Database): Promise<void> {
  const { version, latest } = await schemaState(db);
  if (version < latest) {
    throw new Error(`Cannot open database: it has schema ${version}, need ${latest}: npm run sync`);
  }
}

async function withExclusiveTarget<Result>(
  options: DatabaseOptions,
  work: (executor: SqlExecutor) => Promise<Result>,
): Promise<Result> {
  const target = await openTarget(options, 'change');
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
