import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { Database, Dialect } from '../src/db/database.js';
import { migrationsOf, tables } from '../src/db/migrations/list.js';
import { migrate } from '../src/db/migrations/migrate.js';
import { openDatabase } from '../src/db/open.js';
import type { DatabaseOptions } from '../src/db/options.js';
import { silentLog } from '../src/logging/log.js';
import { allDialects } from './support/databases/dialects.js';
import { asIs, findServer, type ServerDialect } from './support/databases/test-server.js';
import { runSource } from './support/servers/process.js';

/** The schema as the database itself describes it, without what depends on rows. */
async function schemaOf(db: Database): Promise<unknown> {
  const ask = (text: string) => db.query<Record<string, unknown>>(asIs(text));
  if (db.dialect === 'sqlite') {
    return ask('select type, name, tbl_name, sql from sqlite_schema order by type, name');
  }
  if (db.dialect === 'postgres') {
    return {
      columns: await ask(`select table_name, ordinal_position, column_name, data_type, is_nullable,
          column_default, character_maximum_length, collation_name, is_identity
        from information_schema.columns where table_schema = current_schema()
        order by table_name, ordinal_position`),
      indexes: await ask(`select indexdef from pg_indexes where schemaname = current_schema()
        order by indexname`),
      constraints: await ask(`select conrelid::regclass::text as of, conname,
          pg_get_constraintdef(oid) as is
        from pg_constraint where connamespace = current_schema()::regnamespace
        order by conrelid::regclass::text, conname`),
    };
  }
  const made: unknown[] = [];
  for (const table of [...tables, 'schema_migration']) {
    const [row] = await ask(`show create table ${table}`);
    made.push(String(row?.['Create Table']).replace(/ AUTO_INCREMENT=\d+/, ''));
  }
  return made;
}

interface Place {
  readonly options: DatabaseOptions;
  drop(): Promise<void>;
}

async function newPlace(dialect: Dialect): Promise<Place> {
  if (dialect !== 'sqlite') {
    const server = await findServer(dialect);
    if (typeof server === 'string') throw new Error(server);
    return server;
  }
  const folder = mkdtempSync(join(tmpdir(), 'herald-'));
  return {
    options: { dialect, file: join(folder, 'test.db'), log: silentLog },
    drop: async () => rmSync(folder, { recursive: true, force: true }),
  };
}

/** After an installation of `version` which is then brought up to date; 0: there was none. */
async function schemaFrom(dialect: Dialect, version: number): Promise<unknown> {
  const { options, drop } = await newPlace(dialect);
  try {
    if (version > 0) {
      await migrate(options, { migrations: migrationsOf[dialect].slice(0, version) });
    }
    await migrate(options);
    const db = await openDatabase(options);
    try {
      return await schemaOf(db);
    } finally {
      await db.close();
    }
  } finally {
    await drop();
  }
}

async function skipFor(dialect: Dialect): Promise<string | false> {
  const server = dialect === 'sqlite' ? undefined : await findServer(dialect);
  return typeof server === 'string' ? server : false;
}

for (const dialect of allDialects) {
  describe(`${dialect} schema`, { skip: await skipFor(dialect) }, () => {
    for (let version = 1; version < migrationsOf[dialect].length; version += 1) {
      test(`is the same, fresh or upgraded from version ${version}`, async () => {
        assert.deepEqual(await schemaFrom(dialect, version), await schemaFrom(dialect, 0));
      });
    }
  });
}

for (const dialect of ['postgres', 'mariadb', 'mysql'] as const) {
  test(`${dialect}: of three processes that migrate at once, one applies each step`, {
    skip: await skipFor(dialect),
  }, async (t) => {
    const { options, drop } = await serverPlace(dialect);
    t.after(() => drop());
    const folder = mkdtempSync(join(tmpdir(), 'herald-'));
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    const env = {
      NODE_ENV: 'test',
      DB_DIALECT: dialect,
      DB_HOST: options.host,
      DB_PORT: String(options.port),
      DB_NAME: options.database,
      DB_USERNAME: options.username,
      DB_PASSWORD: options.password,
    };

    const outcomes = await Promise.all(
      [1, 2, 3].map(() => runSource('commands/sync.ts', [], { cwd: folder, env })),
    );

    for (const { code, err } of outcomes) assert.equal(code, 0, err);
    const applied = outcomes.flatMap(({ out }) => out.match(/^Applied .*$/gm) ?? []);
    const steps = migrationsOf[dialect].map(({ version, name }) => `Applied  ${version} ${name}`);
    assert.deepEqual(applied.sort(), steps);
  });
}

async function serverPlace(dialect: ServerDialect) {
  const server = await findServer(dialect);
  if (typeof server === 'string') throw new Error(server);
  return server;
}
