import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { newDatabase, skipFor } from '../../../test/support/databases/new-database.js';
import {
  findServer,
  rawSql,
  type ServerDialect,
} from '../../../test/support/databases/test-server.js';
import { collectingLog } from '../../../test/support/recording/collecting-log.js';
import { type Dialect, sql, tuples } from '../database.js';
import { MariadbDatabase } from '../mariadb/mariadb.js';
import { openDatabase } from '../open.js';
import { type DatabaseOptions, getDatabaseName } from '../options.js';
import { migrationsByDialect, tables } from './list.js';
import { migrate, readSchemaStatus, readSchemaVersions, reset } from './migrate.js';
import type { Migration } from './migration.js';

for (const dialect of ['sqlite', 'postgres', 'mariadb', 'mysql'] as const) {
  await describeMigrations(dialect);
}

async function describeMigrations(dialect: Dialect): Promise<void> {
  const skip = await skipFor(dialect);

  async function withTarget(work: (options: DatabaseOptions) => Promise<void>): Promise<void> {
    const { options, drop } = await newDatabase(dialect);
    try {
      await work(options);
    } finally {
      await drop();
    }
  }

  const known = migrationsByDialect[dialect];
  const steps = known.map(({ version, name }) => ({ version, name }));
  const latest = known.length;
  const [create, insert] = [
    'create table if not exists more (id int)',
    'insert into more values (1)',
  ];
  const extraMigration: Migration = {
    version: latest + 1,
    name: 'more',
    statements: [create, insert],
  };
  const extraStep = { version: extraMigration.version, name: extraMigration.name };

  // Each test has its own database.
  describe(`${dialect} migrations`, { skip, concurrency: 4 }, () => {
    test('migrate creates the database and all tables', () =>
      withTarget(async (options) => {
        const outcome = await migrate(options);

        assert.deepEqual(outcome, { applied: steps, version: latest });
        const db = await openDatabase(options);
        try {
          for (const table of tables) {
            const rows = await db.query(rawSql(`select count(*) as count from ${table}`));
            assert.deepEqual(rows, [{ count: 0 }], table);
          }
          assert.deepEqual(await readSchemaVersions(db), { version: latest, latest });
        } finally {
          await db.close();
        }
      }));

    test('deleting a user cascades to sessions, stream tokens and their topics, and its id is never reused', () =>
      withTarget(async (options) => {
        await migrate(options);
        const db = await openDatabase(options);
        try {
          const user = (name: string) =>
            sql`insert into users (username, username_key, password_hash, first_name, last_name,
              password_changed_at, created_at, updated_at)
              values (${name}, ${name}, 'x', 'x', 'x', 0, 0, 0)`;
          const ids = sql`select id from users order by id`;
          await db.execute(user('ann'));
          const [ann] = await db.query<{ id: number }>(ids);
          assert.equal(ann?.id, 1);
          await db.execute(
            sql`insert into sessions (id, user_id, selector, cur_hash, created_at, refreshed_at,
              idle_expires_at, absolute_expires_at) values ('s', 1, 's', 'h', 0, 0, 0, 0)`,
          );
          await db.execute(
            sql`insert into stream_tokens (token_hash, user_id, session_id, created_at, expires_at)
              values ('t', 1, 's', 0, 0)`,
          );
          await db.execute(
            sql`insert into token_topics (token_hash, topic, since) values ('t', 'orders', 1)`,
          );

          await db.execute(sql`delete from users where id = 1`);
          await db.execute(user('bob'));

          assert.deepEqual(await db.query(sql`select id from sessions`), []);
          assert.deepEqual(await db.query(sql`select token_hash from stream_tokens`), []);
          assert.deepEqual(await db.query(sql`select topic from token_topics`), []);
          assert.deepEqual(await db.query(ids), [{ id: 2 }]);
        } finally {
          await db.close();
        }
      }));

    test('names and audiences that differ only in case or accent are distinct', () =>
      withTarget(async (options) => {
        await migrate(options);
        const db = await openDatabase(options);
        try {
          const rows = ['a', 'A', 'á'].map((name) => [name, name, 'x', 'x', 'x', 0, 0, 0]);
          await db.execute(
            sql`insert into users (username, username_key, password_hash, first_name, last_name,
              password_changed_at, created_at, updated_at) values ${tuples(rows)}`,
          );
          await db.execute(
            sql`insert into event_audiences (audience, seq) values ('u:a', 1), ('u:A', 1)`,
          );

          assert.equal((await db.query(sql`select id from users`)).length, 3);
          assert.deepEqual(
            await db.query(sql`select seq from event_audiences where audience = ${'u:A'}`),
            [{ seq: 1 }],
          );
        } finally {
          await db.close();
        }
      }));

    test('a second migrate applies nothing', () =>
      withTarget(async (options) => {
        await migrate(options);

        assert.deepEqual(await migrate(options), { applied: [], version: latest });
      }));

    test('concurrent migrators apply each migration once', () =>
      withTarget(async (options) => {
        const outcomes = await Promise.all([1, 2, 3].map(() => migrate(options)));

        assert.deepEqual(
          outcomes.flatMap(({ applied }) => applied),
          steps,
        );
      }));

    test('migrate applies only pending migrations', () =>
      withTarget(async (options) => {
        await migrate(options);

        const outcome = await migrate(options, { migrations: [...known, extraMigration] });

        assert.deepEqual(outcome, { applied: [extraStep], version: extraMigration.version });
      }));

    test('migrate refuses a migration that changed after it was applied', () =>
      withTarget(async (options) => {
        await migrate(options);
        const changed = known.map((migration) => ({ ...migration, statements: [create] }));

        await assert.rejects(
          migrate(options, { migrations: [...changed, extraMigration] }),
          /Cannot use schema: migration 1 \(init\) is not the one that was applied/,
        );
        const schemaStatus = await readSchemaStatus(options, {
          migrations: [...known, extraMigration],
        });
        assert.deepEqual(schemaStatus?.pending, [extraStep]);
      }));

    test('a schema that the program knows is opened without a warning', () =>
      withTarget(async (options) => {
        await migrate(options);

        assert.deepEqual(await openAndLog(options), []);
      }));

    test('a schema one step newer is opened, with one warning that names both versions', () =>
      withTarget(async (options) => {
        await migrate(options, { migrations: [...known, extraMigration] });

        assert.deepEqual(await openAndLog(options), [
          {
            level: 'warn',
            phrase: 'database schema is newer than this program',
            schemaVersion: extraMigration.version,
            knownVersion: latest,
          },
        ]);
        assert.deepEqual(await migrate(options), { applied: [], version: extraMigration.version });
        const schemaStatus = await readSchemaStatus(options);
        assert.equal(schemaStatus?.version, extraMigration.version);
        assert.equal(schemaStatus.latest, latest);
        assert.deepEqual(schemaStatus.pending, []);
      }));

    test('a schema two steps newer is refused', () =>
      withTarget(async (options) => {
        const further: Migration = { version: latest + 2, name: 'further', statements: [create] };
        await migrate(options, { migrations: [...known, extraMigration, further] });

        await assertSchemaRefused(
          options,
          `it is version ${latest + 2}, and this program knows up to ${latest} and accepts ${latest + 1}`,
        );
      }));

    test('a schema one step newer is refused when an earlier version is missing', () =>
      withTarget(async (options) => {
        await migrate(options);
        await runStatements(options, [addStep(latest + 2)]);

        await assertSchemaRefused(options, `it is version ${latest + 2}`);
      }));

    test('a schema one step newer is refused while that step is unfinished', () =>
      withTarget(async (options) => {
        await migrate(options);
        await runStatements(options, [addStep(extraMigration.version, { dirty: 1 })]);

        await assertSchemaRefused(
          options,
          `migration ${extraMigration.version} (more) is unfinished`,
        );
      }));

    test('a schema one step newer is refused when an earlier migration differs', () =>
      withTarget(async (options) => {
        await migrate(options);
        const edit = `update schema_migration set checksum = 'x' where version = ${latest}`;
        await runStatements(options, [edit, addStep(extraMigration.version)]);

        await assertSchemaRefused(options, `migration ${latest} (`);
      }));

    test('readSchemaStatus lists applied and pending migrations and changes nothing', () =>
      withTarget(async (targetOptions) => {
        const options = { ...targetOptions, wallClock: () => 1_767_225_600_000 };
        assert.equal(await readSchemaStatus(options), undefined);
        await migrate(options);

        const schemaStatus = await readSchemaStatus(options, {
          migrations: [...known, extraMigration],
        });

        assert.deepEqual(schemaStatus, {
          version: latest,
          latest: extraMigration.version,
          applied: steps.map((step) => ({ ...step, appliedAt: 1_767_225_600_000 })),
          pending: [extraStep],
          unfinished: undefined,
        });
      }));

    test('a migration that failed half-way can be resumed', () =>
      withTarget(async (options) => {
        const missing = 'insert into nowhere values (1)';
        const broken = { ...extraMigration, statements: [create, insert, missing, insert] };
        const migrations = [...known, broken];
        await migrate(options);
        await assert.rejects(migrate(options, { migrations }), /Cannot run statement: insert into/);
        const schemaStatus = await readSchemaStatus(options, { migrations });

        // MariaDB and MySQL keep finished statements and record progress; the others roll back.
        const keepsProgress = dialect === 'mariadb' || dialect === 'mysql';
        assert.equal(schemaStatus?.version, latest);
        assert.deepEqual(schemaStatus?.unfinished, keepsProgress ? extraStep : undefined);
        if (!keepsProgress) {
          const outcome = await migrate(options, { migrations: [...known, extraMigration] });
          assert.deepEqual(outcome.applied, [extraStep]);
          return;
        }
        await createTable(options, 'nowhere');
        const outcome = await migrate(options, { migrations });
        assert.deepEqual(outcome.applied, [extraStep]);
        const db = await openServer(options);
        try {
          const rows = await db.query(sql`select count(*) as count from more`);
          assert.deepEqual(rows, [{ count: 2 }]); // The first insert did not run twice.
        } finally {
          await db.close();
        }
      }));

    test('an interrupted migration resumes at its last statement, which may run twice', () =>
      withTarget(async (options) => {
        if (dialect !== 'mariadb' && dialect !== 'mysql') return; // The others roll back.
        await migrate(options);
        const db = await openServer(options);
        await db.execute(sql`update schema_migration set dirty = 1, statements_done = 0`);
        await db.close();
        await assert.rejects(openDatabase(options), /npm run sync/);

        assert.deepEqual(await migrate(options), { applied: steps, version: latest });
        await (await openDatabase(options)).close();
      }));

    test('migrate rejects while a transaction locks a table, and succeeds afterwards', () =>
      withTarget(async (options) => {
        if (dialect === 'sqlite') return; // No other process can have the file open.
        await migrate(options);
        const alter = 'alter table sessions add column more int';
        const migrations = [...known, { ...extraMigration, statements: [alter] }];
        const db = await openDatabase(options);
        try {
          await db.transaction(async (tx) => {
            await tx.query(sql`select id from sessions`);
            await assert.rejects(
              migrate(options, { migrations }),
              /^Error: Cannot migrate: a table is in use/,
            );
          });

          const outcome = await migrate(options, { migrations });
          assert.deepEqual(outcome.applied, [extraStep]);
        } finally {
          await db.close();
        }
      }));

    test('while another migrator holds the lock, migrate rejects with a message about the lock', () =>
      withTarget(async (options) => {
        if (dialect === 'sqlite') return; // The file is locked: see `file.test.ts`.
        await migrate(options);
        const db = await openDatabase(options);
        try {
          await db.transaction(async (tx) => {
            await tx.query(rawSql(lockStatements[dialect](getDatabaseName(options))));
            await assert.rejects(
              migrate({ ...options, lockMs: 1000 }),
              /^Error: Cannot migrate: another npm run sync has held the lock for 1 s/,
            );
          });
        } finally {
          await db.close();
        }
      }));

    test('the database server ends the connection of a migrator that is idle for a minute', () =>
      withTarget(async (options) => {
        if (dialect === 'sqlite') return; // The operating system releases the lock.
        const idleLimit =
          dialect === 'postgres'
            ? "current_setting('idle_in_transaction_session_timeout')"
            : "concat(@@session.wait_timeout / 60, 'min')";
        const record = `create table more as select ${idleLimit} as idle_limit`;

        await migrate(options, {
          migrations: [...known, { ...extraMigration, statements: [record] }],
        });

        const db = await openDatabase(options);
        const [row] = await db.query<{ idle_limit: string }>(sql`select idle_limit from more`);
        await db.close();
        assert.match(row?.idle_limit ?? '', /^1(\.0+)?min$/);
      }));

    test('reset drops and recreates all tables, if confirmed', () =>
      withTarget(async (options) => {
        await migrate(options);
        const db = await openDatabase(options);
        await db.execute(
          sql`insert into users (username, username_key, password_hash, first_name, last_name,
            password_changed_at, created_at, updated_at) values ('a','a','x','x','x',0,0,0)`,
        );
        await db.close();
        const name = getDatabaseName(options);

        await assert.rejects(
          reset(options, { isProduction: true, yes: name }),
          /this is production/,
        );
        for (const yes of [undefined, '', 'other']) {
          await assert.rejects(
            reset(options, { isProduction: false, yes }),
            new RegExp(`--yes=${name}`),
          );
        }
        const outcome = await reset(options, { isProduction: false, yes: name });

        assert.deepEqual(outcome, { applied: steps, version: latest });
        const again = await openDatabase(options);
        assert.deepEqual(await again.query(sql`select id from users`), []);
        await again.close();
        // Without users no confirmation is needed.
        await reset(options, { isProduction: false, yes: undefined });
      }));
  });
}

/** The statement with which a migrator acquires the lock. */
const lockStatements: Readonly<Record<ServerDialect, (database: string) => string>> = {
  postgres: () => 'select pg_advisory_xact_lock(4711000017)',
  mariadb: (database) => `select get_lock('herald:migrate:${database}', 0)`,
  mysql: (database) => `select get_lock('herald:migrate:${database}', 0)`,
};

/** Opens and closes the database. Returns the lines that were logged at `info` and above. */
async function openAndLog(options: DatabaseOptions): Promise<Record<string, unknown>[]> {
  const lines: Record<string, unknown>[] = [];
  await (await openDatabase({ ...options, log: collectingLog(lines) })).close();
  return lines.filter(({ level }) => level !== 'debug');
}

/** Asserts that the program neither opens, nor migrates, nor reports on the schema. */
async function assertSchemaRefused(options: DatabaseOptions, reason: string): Promise<void> {
  const isRefused = (error: Error) => error.message.startsWith(`Cannot use schema: ${reason}`);
  await assert.rejects(openDatabase(options), isRefused);
  await assert.rejects(migrate(options), isRefused);
  await assert.rejects(readSchemaStatus(options), isRefused);
}

/** Builds the statement with which a newer program would record a step. */
function addStep(version: number, { dirty = 0 } = {}): string {
  return `insert into schema_migration values (${version}, 'more', 'x', 0, ${dirty}, 0)`;
}

/** Runs statements on a database whose schema the program still knows. */
async function runStatements(
  options: DatabaseOptions,
  statements: readonly string[],
): Promise<void> {
  const db = await openDatabase(options);
  try {
    for (const statement of statements) await db.execute(rawSql(statement));
  } finally {
    await db.close();
  }
}

/** Opens a MariaDB or MySQL database without the schema check, which would reject the schema. */
function openServer(options: DatabaseOptions) {
  if (options.dialect === 'sqlite') throw new Error('not a server');
  return MariadbDatabase.open(options);
}

/** Creates a table outside the migrations, as an operator would. */
async function createTable(options: DatabaseOptions, table: string): Promise<void> {
  const server = await findServer(options.dialect === 'mysql' ? 'mysql' : 'mariadb');
  if (typeof server === 'string') throw new Error(server);
  await server.administer(`create table ${getDatabaseName(options)}.${table} (id int)`);
}
