import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { describeDatabase } from '../../../test/support/databases/database-contract.js';
import { waitForBlocked } from '../../../test/support/databases/locks.js';
import { findServer, rawSql } from '../../../test/support/databases/test-server.js';
import { openTcpProxy } from '../../../test/support/tcp-proxy.js';
import { until } from '../../../test/support/until.js';
import { list, sql } from '../database.js';
import { migrationsByDialect } from '../migrations/list.js';
import { migrate } from '../migrations/migrate.js';
import { openDatabase } from '../open.js';
import type { DatabaseServerOptions } from '../options.js';
import { PostgresDatabase } from './postgres.js';

const server = await findServer('postgres');
const skip = typeof server === 'string' ? server : false;

if (typeof server !== 'string') {
  await migrate(server.options);
  after(() => server.drop());
}

function options(changes: Partial<DatabaseServerOptions> = {}): DatabaseServerOptions {
  if (typeof server === 'string') throw new Error(server);
  return { ...server.options, ...changes };
}

async function withDatabase(
  changes: Partial<DatabaseServerOptions>,
  work: (db: PostgresDatabase) => Promise<void>,
): Promise<void> {
  const db = await PostgresDatabase.open(options(changes));
  try {
    await work(db);
  } finally {
    await db.close();
  }
}

const unavailable = { name: 'service_unavailable', status: 503 };

describeDatabase('postgres', () => openDatabase(options()), skip);

describe('postgres meets the contract without prepared statements', { skip }, () => {
  describeDatabase('postgres', () => openDatabase(options({ prepare: false })), skip);
});

// The tests mostly wait for deadlines, so they run at the same time.
describe('postgres failure handling', { skip, concurrency: true }, () => {
  test('a query returns no empty rows after another query failed in the middle of its result', () =>
    withDatabase({ connectionsMax: 1 }, async (db) => {
      for (let round = 0; round < 3; round++) {
        await assert.rejects(db.query(sql`select 10 / (5 - i) from generate_series(1, 10) i`));

        const rows = await db.query(sql`select i from generate_series(1, 3) i`);

        assert.deepEqual(rows, [{ i: 1 }, { i: 2 }, { i: 3 }]);
        await assert.rejects(db.query(sql`select 10 / (5 - i) from generate_series(1, 10) i`));
        assert.equal((await db.query(sql`show server_version`)).length, 1);
      }
    }));

  test('the database server cancels a statement that runs too long', () =>
    withDatabase({ statementMs: 2000 }, async (db) => {
      await assert.rejects(db.query(sql`select pg_sleep(30)`), unavailable);
      await assert.rejects(
        db.transaction((tx) => tx.query(sql`select pg_sleep(30)`)),
        unavailable,
      );

      assert.deepEqual(await db.query(sql`select 1 as one`), [{ one: 1 }]);
    }));

  test('when the database server hangs, statements are rejected and new connections are opened', async () => {
    const proxy = await openTcpProxy(options());
    const changes = { host: '127.0.0.1', port: proxy.port, connectMs: 3000, statementMs: 1000 };
    try {
      await withDatabase(changes, async (db) => {
        await Promise.all([1, 2, 3, 4].map(() => db.query(sql`select pg_sleep(0.01)`)));
        proxy.freeze();

        const queries = Array.from({ length: 200 }, () => db.query(sql`select 1`));
        const transactions = Array.from({ length: 20 }, () =>
          db.transaction((tx) => tx.query(sql`select 1`)),
        );
        const outcomes = await Promise.allSettled(queries);
        await Promise.allSettled(transactions); // Some waited until connections were replaced.

        const names = outcomes.map(
          (outcome) => outcome.status === 'rejected' && outcome.reason.name,
        );
        assert.deepEqual(new Set(names), new Set(['service_unavailable']));
        assert.deepEqual(await db.query(sql`select 1 as one`), [{ one: 1 }]);
        assert.equal(await db.transaction(async () => 'begun'), 'begun');
      });
    } finally {
      await proxy.close();
    }
  });

  test('when a connection is lost, its statements fail and later ones succeed', async () => {
    const proxy = await openTcpProxy(options());
    try {
      await withDatabase({ host: '127.0.0.1', port: proxy.port, connectionsMax: 2 }, async (db) => {
        const running = Promise.allSettled([db.query(sql`select pg_sleep(30)`)]);
        const late: Promise<unknown>[] = [];
        const transaction = db.transaction(async (tx) => {
          await tx.query(sql`select 1`);
          proxy.cut();
          await running;
          late.push(tx.execute(sql`create table made_outside (id integer)`));
          await Promise.allSettled(late);
        });

        await assert.rejects(transaction, unavailable);
        const [outcome] = await running;
        assert.equal(outcome.status === 'rejected' && outcome.reason.name, 'service_unavailable');
        await assert.rejects(late[0] ?? Promise.resolve());
        const lookup = sql`select to_regclass('made_outside') as made`;
        assert.deepEqual(await db.query(lookup), [{ made: null }]);
      });
    } finally {
      await proxy.close();
    }
  });

  test('a connection that is lost while it is being opened does not end the process', async () => {
    const proxy = await openTcpProxy(options());
    try {
      for (const message of [1, 2]) {
        proxy.cutAt(message); // The first message of the database server, then the second.

        // An unhandled error would end the process, and with it this test.
        await assert.rejects(
          PostgresDatabase.open(options({ host: '127.0.0.1', port: proxy.port })),
          /^Error: Cannot open database: no answer from PostgreSQL at 127\.0\.0\.1:\d+ \(ECONNRESET\)$/,
        );
      }
    } finally {
      await proxy.close();
    }
  });

  test('a migrator that loses its connection rejects with that reason, and the next migrator succeeds', () =>
    withDatabase({}, async (db) => {
      const more = {
        version: migrationsByDialect.postgres.length + 1,
        name: 'more',
        statements: ['alter table sessions add column more int'],
      };
      const migrations = [...migrationsByDialect.postgres, more];
      await db.transaction(async (tx) => {
        await tx.query(sql`select id from sessions`);
        const migrating = assert.rejects(
          migrate(options(), { migrations }),
          /^Error: Cannot migrate: the connection was lost: run npm run sync again$/,
        );
        await waitForBlocked(db, 'alter table');

        await db.query(
          sql`select pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and query like 'alter table%'`,
        );

        await migrating; // An unhandled error would end the process, and with it this test.
      });

      assert.equal((await migrate(options(), { migrations })).applied.length, 1);
    }));

  test("statements reject with service_unavailable while Herald's role may not log in", async () => {
    if (typeof server === 'string') return;
    const { administer } = server;
    const username = `herald_test_role_${process.pid}`;
    await administer(`create role ${username} superuser login`);
    try {
      await withDatabase({ username }, async (db) => {
        await administer(`alter role ${username} nologin`);
        await administer(
          `select pg_terminate_backend(pid) from pg_stat_activity where usename = '${username}'`,
        );

        for (let round = 0; round < 3; round += 1) {
          await assert.rejects(db.query(sql`select 1 as one`), unavailable);
          await assert.rejects(
            db.transaction(async () => {}),
            unavailable,
          );
        }
        await administer(`alter role ${username} login`);
        await until(() => db.query(sql`select 1 as one`).then(Boolean, () => false));
      });
    } finally {
      await administer(`drop role ${username}`);
    }
  });

  test('a transaction that never ends is rolled back at its deadline', () =>
    withDatabase({ connectMs: 3000, statementMs: 1000, connectionsMax: 2 }, async (db) => {
      const stuck = db.transaction(() => new Promise<never>(() => undefined));

      await assert.rejects(stuck, unavailable);
      assert.deepEqual(await db.query(sql`select 1 as one`), [{ one: 1 }]);
      assert.equal(await db.transaction(async () => 'begun'), 'begun');
    }));

  test('the number of prepared statements is bounded', () =>
    withDatabase({ connectionsMax: 1 }, async (db) => {
      for (let length = 1; length <= 250; length++) {
        const ids = Array.from({ length }, (_, id) => id);
        await db.query(sql`select id from users where id in (${list(ids)})`);
      }
      for (let number = 0; number < 350; number++) {
        await db.query({ texts: [`select ${number} + `, ' as sum'], values: [1] });
      }

      const prepared = await db.query<{ statement: string }>(
        rawSql('select statement from pg_prepared_statements'),
      );

      // 200 texts of variable arity, then others up to 500 in total.
      const lists = prepared.filter(({ statement }) => statement.includes(' where id in ('));
      assert.ok(lists.length <= 200 && lists.length >= 150, `${lists.length}`);
      assert.ok(prepared.length <= 501 && prepared.length >= 400, `${prepared.length}`);
    }));
});

describe('opening postgres', { skip }, () => {
  const cases: [string, Partial<DatabaseServerOptions>, RegExp][] = [
    ['a closed port', { port: 1 }, /no answer from PostgreSQL at .*:1 \(ECONNREFUSED\)/],
    [
      'a missing socket',
      { host: '/run/nowhere', port: 5432 },
      /no answer from PostgreSQL at \/run\/nowhere\/\.s\.PGSQL\.5432 \(ENOENT\)$/,
    ],
    ['a missing database', { database: 'herald_test_none' }, /npm run sync/],
    [
      'an unknown user',
      { username: 'nobody_here' },
      /PostgreSQL refuses the login of nobody_here: check DB_USERNAME/,
    ],
    ['a missing schema', { database: 'postgres' }, /schema 0, need \d+: npm run sync/],
  ];
  for (const [problem, changes, message] of cases) {
    test(`open rejects with a message about ${problem}`, async () => {
      await assert.rejects(openDatabase(options(changes)), message);
    });
  }

  test('open rejects with a message about connections when the role has no connection left', async () => {
    if (typeof server === 'string') return;
    const username = `herald_test_none_${process.pid}`;
    await server.administer(`create role ${username} login connection limit 0`);
    try {
      await assert.rejects(openDatabase(options({ username })), /has no free connections/);
    } finally {
      await server.administer(`drop role ${username}`);
    }
  });

  test('open rejects when the database server accepts the connection but does not answer', async () => {
    const proxy = await openTcpProxy({ host: '192.0.2.1', port: 9 }); // Reserved by RFC 5737.
    try {
      const changes = { host: '127.0.0.1', port: proxy.port, connectMs: 100 };
      await assert.rejects(openDatabase(options(changes)), /Cannot open database/);
    } finally {
      await proxy.close();
    }
  });
});
