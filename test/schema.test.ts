import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, test } from 'node:test';
import type { Database, Dialect } from '../src/db/database.js';
import { migrationsByDialect, tables } from '../src/db/migrations/list.js';
import { migrate } from '../src/db/migrations/migrate.js';
import { openDatabase } from '../src/db/open.js';
import { allDialects } from './support/databases/dialects.js';
import { newDatabase, skipFor } from './support/databases/new-database.js';
import { databaseEnv, findServer, rawSql } from './support/databases/test-server.js';
import { runSource, tempFolder } from './support/servers/process.js';

/** Returns the schema as the database describes it, without anything that depends on rows. */
async function readSchema(db: Database): Promise<unknown> {
  const query = (text: string) => db.query<Record<string, unknown>>(rawSql(text));
  if (db.dialect === 'sqlite') {
    return query('select type, name, tbl_name, sql from sqlite_schema order by type, name');
  }
  if (db.dialect === 'postgres') {
    return {
      columns:
        await query(`select table_name, ordinal_position, column_name, data_type, is_nullable,
          column_default, character_maximum_length, collation_name, is_identity
        from information_schema.columns where table_schema = current_schema()
        order by table_name, ordinal_position`),
      indexes: await query(`select indexdef from pg_indexes where schemaname = current_schema()
        order by indexname`),
      constraints: await query(`select conrelid::regclass::text as of, conname,
          pg_get_constraintdef(oid) as is
        from pg_constraint where connamespace = current_schema()::regnamespace
        order by conrelid::regclass::text, conname`),
    };
  }
  const statements: unknown[] = [];
  for (const table of [...tables, 'schema_migration']) {
    const [row] = await query(`show create table ${table}`);
    statements.push(String(row?.['Create Table']).replace(/ AUTO_INCREMENT=\d+/, ''));
  }
  return statements;
}

/** Installs `version`, upgrades to the latest and returns the schema. Version 0 stands for a fresh installation. */
async function upgradeFrom(dialect: Dialect, version: number): Promise<unknown> {
  const { options, drop } = await newDatabase(dialect);
  try {
    if (version > 0) {
      await migrate(options, { migrations: migrationsByDialect[dialect].slice(0, version) });
    }
    await migrate(options);
    const db = await openDatabase(options);
    try {
      return await readSchema(db);
    } finally {
      await db.close();
    }
  } finally {
    await drop();
  }
}

for (const dialect of allDialects) {
  describe(`${dialect} schema`, { skip: await skipFor(dialect) }, () => {
    for (let version = 1; version < migrationsByDialect[dialect].length; version += 1) {
      test(`an upgrade from version ${version} gives the schema of a fresh installation`, async () => {
        assert.deepEqual(await upgradeFrom(dialect, version), await upgradeFrom(dialect, 0));
      });
    }
  });
}

for (const dialect of ['postgres', 'mariadb', 'mysql'] as const) {
  test(`${dialect}: exactly one of three concurrent migrations applies each step`, {
    skip: await skipFor(dialect),
  }, async (t) => {
    const server = await findServer(dialect);
    if (typeof server === 'string') throw new Error(server);
    t.after(() => server.drop());
    const env = { NODE_ENV: 'test', ...databaseEnv(server.options) };
    const cwd = tempFolder(t);

    const outcomes = await Promise.all(
      [1, 2, 3].map(() => runSource('commands/sync.ts', [], { cwd, env })),
    );

    for (const { code, err } of outcomes) assert.equal(code, 0, err);
    const applied = outcomes.flatMap(({ out }) => out.match(/^Applied .*$/gm) ?? []);
    const steps = migrationsByDialect[dialect].map(
      ({ version, name }) => `Applied  ${version} ${name}`,
    );
    assert.deepEqual(applied.sort(), steps);
  });
}

test('docs/databases.md says for every table what it stores, and until when', async () => {
  const text = await readFile(new URL('../docs/databases.md', import.meta.url), 'utf8');
  const [, section = ''] = text.split('\n## Stored data and retention\n');

  const firstCells = section.matchAll(/^\|([^|]*)\|/gm);
  const named = [...firstCells].flatMap(([, cell = '']) => cell.match(/(?<=`)\w+(?=`)/g) ?? []);

  assert.deepEqual(named.toSorted(), [...tables, 'schema_migration'].sort());
});
