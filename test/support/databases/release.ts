import { readFileSync } from 'node:fs';
import { CliSqliteDatabase } from '../../../src/commands/cli-sqlite-database.js';
import type { Database, Sql } from '../../../src/db/database.js';
import { MariadbDatabase } from '../../../src/db/mariadb/mariadb.js';
import { migrationsByDialect } from '../../../src/db/migrations/list.js';
import { migrate } from '../../../src/db/migrations/migrate.js';
import type { DatabaseOptions } from '../../../src/db/options.js';
import { PostgresDatabase } from '../../../src/db/postgres/postgres.js';

type Row = Readonly<Record<string, string | number | null>>;

/** The database of a release after it was stopped, and the credentials and ids of its clients. */
export interface Release {
  /** Version of the database schema. */
  readonly schemaVersion: number;
  /** Epoch ms of the recording, shortly after all times in the rows. */
  readonly recordedAt: number;
  readonly accessTokenSecret: string;
  readonly apiKey: string;
  /** Refresh token of a session of ada. */
  readonly refreshToken: string;
  /** Path of a stream of another session of ada; the stream has received `seen`. */
  readonly streamPath: string;
  /** Path of a stream of bob that was never opened. */
  readonly unopenedPath: string;
  /** Id of the last event that the stream of ada received. */
  readonly seen: string;
  /** Ids of the events for ada after `seen`. */
  readonly missed: readonly string[];
  /** The rows by table. A table comes before the tables that refer to it. */
  readonly rows: Readonly<Record<string, readonly Row[]>>;
}

/** The state that 0.1.0 left, recorded on the embedded database. The rows are the same in every dialect. */
export const release010 = JSON.parse(
  readFileSync(new URL('release-0.1.0.json', import.meta.url), 'utf8'),
) as Release;

/** Creates the database with the schema and rows of a release. Shifts all times, as if it had just stopped. */
export async function restoreRelease(release: Release, options: DatabaseOptions): Promise<void> {
  const migrations = migrationsByDialect[options.dialect].slice(0, release.schemaVersion);
  await migrate(options, { migrations });
  const db = await openUnchecked(options);
  try {
    const ageMs = Date.now() - release.recordedAt;
    for (const [table, rows] of Object.entries(release.rows)) {
      for (const row of rows) await db.execute(toInsert(table, row, ageMs));
    }
  } finally {
    await db.close();
  }
}

/** Opens a database without checking its schema, which may be older than this program requires. */
function openUnchecked(options: DatabaseOptions): Promise<Database> {
  if (options.dialect === 'sqlite') return CliSqliteDatabase.open(options.file);
  if (options.dialect === 'postgres') return PostgresDatabase.open(options);
  return MariadbDatabase.open(options);
}

/** Adds `ageMs` to every number above 1e12, because such numbers are times in epoch ms. */
function toInsert(table: string, row: Row, ageMs: number): Sql {
  const columns = Object.keys(row);
  const values = Object.values(row).map((value) =>
    typeof value === 'number' && value > 1e12 ? value + ageMs : value,
  );
  const texts = [`insert into ${table} (${columns.join(', ')}) values (`];
  return { texts: [...texts, ...columns.slice(1).map(() => ', '), ')'], values };
}
