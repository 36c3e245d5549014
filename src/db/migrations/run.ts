import type { Clock } from '../../clock.js';
import { Failure } from '../../errors.js';
import { type Dialect, type Sql, sql } from '../database.js';
import { type SqlExecutor, TransactionConflict } from '../transaction.js';
import { formerTables, tables } from './list.js';
import { computeChecksum, getLatestVersion, type Migration } from './migration.js';

export interface Step {
  readonly version: number;
  readonly name: string;
}

export interface MigrationOutcome {
  /** In order; empty when the schema was up to date. */
  readonly applied: readonly Step[];
  /**
   * The schema version afterwards. May be one higher than the newest version this program knows.
   */
  readonly version: number;
}

export interface SchemaStatus {
  /** 0 without tables; one higher than `latest` when a newer Herald has migrated. */
  readonly version: number;
  /** The newest version this program knows. */
  readonly latest: number;
  readonly applied: readonly (Step & { readonly appliedAt: number })[];
  readonly pending: readonly Step[];
  /** A migration that was interrupted; `migrate` resumes it. */
  readonly unfinished: Step | undefined;
}

/** How many steps a schema may be newer than the program: during an upgrade, programs of two versions run. */
const stepsNewerMax = 1;

export interface MigrationParts {
  readonly dialect: Dialect;
  readonly migrations: readonly Migration[];
  readonly wallClock?: Clock;
}

interface MigrationRow {
  readonly version: number;
  readonly name: string;
  readonly checksum: string;
  readonly applied_at: number;
  /** 1 while the migration is unfinished, otherwise 0. */
  readonly dirty: number;
  /** How many statements of the migration have been executed and recorded. */
  readonly statements_done: number;
}

/**
 * Applies pending migrations. The caller must hold the lock that excludes other migrators.
 *
 * Progress is recorded per statement, so on MariaDB and MySQL, which cannot roll back DDL, an
 * interrupted migration resumes at the first statement that is not recorded. On SQLite and
 * PostgreSQL a failure leaves no trace. Throws when an applied migration has changed, or the schema
 * is more than one step newer than this program, or one step newer and unfinished.
 */
export async function applyPending(
  executor: SqlExecutor,
  { dialect, migrations, wallClock = Date.now }: MigrationParts,
): Promise<MigrationOutcome> {
  await executor.execute(sql`create table if not exists schema_migration (
    version int not null primary key, name varchar(190) not null, checksum varchar(64) not null,
    applied_at bigint not null, dirty int not null, statements_done int not null)`);
  const rows = await readMigrationRows(executor, dialect);
  checkHistory(rows, migrations);
  const applied: Step[] = [];
  for (const migration of migrations) {
    const row = rows.find(({ version }) => version === migration.version);
    if (row?.dirty === 0) continue;
    await applyOne(executor, migration, row, wallClock);
    applied.push(toStep(migration));
  }
  const newest = rows.at(-1)?.version ?? 0;
  return { applied, version: Math.max(newest, getLatestVersion(migrations)) };
}

/** Returns applied and pending migrations; writes nothing. Throws the same errors as `applyPending`. */
export async function readStatus(
  executor: SqlExecutor,
  { dialect, migrations }: MigrationParts,
): Promise<SchemaStatus> {
  const rows = await readMigrationRows(executor, dialect);
  checkHistory(rows, migrations);
  const finished = rows.filter(({ dirty }) => dirty === 0);
  const unfinished = rows.find(({ dirty }) => dirty !== 0);
  return {
    version: finished.at(-1)?.version ?? 0,
    latest: getLatestVersion(migrations),
    applied: finished.map((row) => ({ ...toStep(row), appliedAt: row.applied_at })),
    pending: migrations.slice(finished.length).map(toStep),
    unfinished: unfinished && toStep(unfinished),
  };
}

/** Drops all tables of Herald, with their data. */
export async function dropTables(executor: SqlExecutor): Promise<void> {
  for (const table of [...tables, ...formerTables, 'schema_migration']) {
    await executor.execute(rawSql(`drop table if exists ${table}`));
  }
}

export async function hasUsers(executor: SqlExecutor, dialect: Dialect): Promise<boolean> {
  if (!(await hasTable(executor, dialect, 'users'))) return false;
  return (await executor.query(sql`select id from users limit 1`)).length > 0;
}

async function applyOne(
  executor: SqlExecutor,
  migration: Migration,
  row: MigrationRow | undefined,
  wallClock: Clock,
): Promise<void> {
  const { version, name, statements } = migration;
  if (row === undefined) {
    await executor.execute(
      sql`insert into schema_migration
          (version, name, checksum, applied_at, dirty, statements_done)
        values (${version}, ${name}, ${computeChecksum(migration)}, ${wallClock()}, 1, 0)`,
    );
  }
  for (const [index, statement] of statements.entries()) {
    if (index < (row?.statements_done ?? 0)) continue;
    await runStatement(executor, statement);
    await executor.execute(
      sql`update schema_migration set statements_done = ${index + 1} where version = ${version}`,
    );
  }
  await executor.execute(
    sql`update schema_migration set dirty = 0, applied_at = ${wallClock()} where version = ${version}`,
  );
}

/** Rejects with a message for an operator when the database server stopped waiting for a table. */
async function runStatement(executor: SqlExecutor, statement: string): Promise<void> {
  try {
    await executor.execute(rawSql(statement));
  } catch (cause) {
    const isUnavailable = cause instanceof Failure && cause.status === 503;
    if (!(cause instanceof TransactionConflict) && !isUnavailable) throw cause;
    const subject = statement.replaceAll(/\s+/g, ' ').slice(0, 60);
    throw new Error(
      `Cannot migrate: a table is in use or the database server is unavailable, run npm run sync again: ${subject}`,
      {
        cause,
      },
    );
  }
}

async function readMigrationRows(executor: SqlExecutor, dialect: Dialect): Promise<MigrationRow[]> {
  if (!(await hasTable(executor, dialect, 'schema_migration'))) return [];
  return executor.query<MigrationRow>(
    sql`select version, name, checksum, applied_at, dirty, statements_done
      from schema_migration order by version`,
  );
}

async function hasTable(executor: SqlExecutor, dialect: Dialect, name: string): Promise<boolean> {
  const queries = {
    sqlite: sql`select name from sqlite_schema where type = 'table' and name = ${name}`,
    postgres: sql`select table_name from information_schema.tables
      where table_schema = current_schema() and table_name = ${name}`,
    mariadb: sql`select table_name from information_schema.tables
      where table_schema = database() and table_name = ${name}`,
  };
  const query = dialect === 'mysql' ? queries.mariadb : queries[dialect];
  return (await executor.query(query)).length > 0;
}

function checkHistory(rows: readonly MigrationRow[], migrations: readonly Migration[]): void {
  for (const [index, { version, name, checksum }] of rows.entries()) {
    const migration = migrations[index];
    if (migration === undefined) break;
    if (migration.version !== version || computeChecksum(migration) !== checksum) {
      throw new Error(
        `Cannot use schema: migration ${version} (${name}) is not the one that was applied`,
      );
    }
  }
  if (rows.length > migrations.length) checkNewer(rows, getLatestVersion(migrations));
}

/**
 * Throws unless the schema is at most one finished step newer. A step keeps everything that a program
 * one step older uses; two steps together may not.
 */
function checkNewer(rows: readonly MigrationRow[], latest: number): void {
  const newest = rows.at(-1)?.version ?? 0;
  if (newest > latest + stepsNewerMax) {
    throw new Error(
      `Cannot use schema: it is version ${newest}, and this program knows up to ${latest} and accepts ${latest + stepsNewerMax}: npm run sync was run by a newer Herald`,
    );
  }
  const unfinished = rows.find(({ dirty }) => dirty !== 0);
  if (unfinished !== undefined) {
    throw new Error(
      `Cannot use schema: migration ${unfinished.version} (${unfinished.name}) is unfinished, and this program knows up to ${latest}: npm run sync of the newer Herald finishes it`,
    );
  }
}

function toStep({ version, name }: Step): Step {
  return { version, name };
}

function rawSql(text: string): Sql {
  return { texts: [text], values: [] };
}
