import { readFileSync } from 'node:fs';
import { CliSqliteDatabase } from '../../../src/commands/cli-sqlite-database.js';
import type { Database, Sql } from '../../../src/db/database.js';
import { MariadbDatabase } from '../../../src/db/mariadb/mariadb.js';
import { migrationsByDialect } from '../../../src/db/migrations/list.js';
import { migrate } from '../../../src/db/migrations/migrate.js';
import type { DatabaseOptions } from '../../../src/db/options.js';
import { PostgresDatabase } from '../../../src/db/postgres/postgres.js';

type Row = Readonly<Record<string, string | number | null>>;

/** A database as a release left it when it was stopped, and what its clients hold. */
export interface Release {
  /** Of its schema. */
  readonly schemaVersion: number;
  /** Epoch ms; shortly after every time in the rows. */
  readonly recordedAt: number;
  readonly accessTokenSecret: string;
  readonly apiKey: string;
  /** Of a session of ada. */
  readonly refreshToken: string;
  /** Of another session of ada; its stream received `seen`. */
  readonly streamPath: string;
  /** Of a session of bob; never opened. */
  readonly unopenedPath: string;
  /** Ids of events for ada: the last her stream received, and those after it. */
  readonly seen: string;
  readonly missed: readonly string[];
  /** By table, those first that others refer to. */
  readonly rows: Readonly<Record<string, readonly Row[]>>;
}

/** What 0.1.0 wrote, recorded on the embedded database; the rows are the same in every dialect. */
export const release010 = JSON.parse(
  readFileSync(new URL('release-0.1.0.json', import.meta.url), 'utf8'),
) as Release;

/** Creates the database with the schema and the rows of a release that was stopped just now. */
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

/** Without the check of the schema, which may be older than the program. */
function openUnchecked(options: DatabaseOptions): Promise<Database> {
  if (options.dialect === 'sqlite') return CliSqliteDatabase.open(options.file);
  if (options.dialect === 'postgres') return PostgresDatabase.open(options);
  return MariadbDatabase.open(options);
}

/** Numbers of the size of epoch ms are times, and move by `ageMs`. */
function toInsert(table: string, row: Row, ageMs: number): Sql {
  const columns = Object.keys(row);
  const values = Object.values(row).map((value) =>
    typeof value === 'number' && value > 1e12 ? value + ageMs : value,
  );
  const texts = [`insert into ${table} (${columns.join(', ')}) values (`];
  return { texts: [...texts, ...columns.slice(1).map(() => ', '), ')'], values };
}
