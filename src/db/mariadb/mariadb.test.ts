import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { describeDatabase } from '../../../test/support/databases/database-contract.js';
import { findServer } from '../../../test/support/databases/test-server.js';
import { openTcpProxy } from '../../../test/support/tcp-proxy.js';
import { until } from '../../../test/support/until.js';
import { sql } from '../database.js';
import { withDeadline } from '../deadline.js';
import { getUnavailableReason } from '../failures.js';
import { migrate } from '../migrations/migrate.js';
import { openDatabase } from '../open.js';
import type { DatabaseServerOptions } from '../options.js';
import { getCurrentText } from '../rotated-file.js';
import { connectMariadb, executeOn, MariadbDatabase } from './mariadb.js';
import { buildSessionSql, buildTransactionSql } from './session.js';

const unavailable = { name: 'service_unavailable', status: 503 };

for (const dialect of ['mariadb', 'mysql'] as const) await describeDialect(dialect);

async function describeDialect(dialect: 'mariadb' | 'mysql'): Promise<void> {
  const server = await findServer(dialect);
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
    work: (db: MariadbDatabase) => Promise<void>,
  ): Promise<void> {
    const db = await MariadbDatabase.open(options(changes));
    try {
      await work(db);
    } finally {
      await db.close();
    }
  }

  describeDatabase(dialect, () => openDatabase(options()), skip);

  // The tests mostly wait for deadlines, so they run at the same time.
  describe(`${dialect} failure handling`, { skip, concurrency: true }, () => {
    test('the connection overrides the SQL mode and the isolation level of the database server', () =>
      withDatabase({}, async (db) => {
        const variable = dialect === 'mysql' ? sql`@@transaction_isolation` : sql`@@tx_isolation`;

        const [row] = await db.query<{ mode: string; isolation: string }>(
          sql`select @@sql_mode as mode, ${variable} as isolation`,
        );

        assert.match(row?.mode ?? '', /STRICT_ALL_TABLES/);
        assert.equal(row?.isolation, 'READ-COMMITTED');
      }));

    test('the password is read again for each connection', async () => {
      let count = 0;
      const readPassword = () => {
        count += 1;
        return getCurrentText(options().password);
      };
      await withDatabase({ password: readPassword, connectionsMax: 1 }, async (db) => {
        await db.query(sql`select 1 as one`);
        const countBefore = count;

        const [row] = await db.query<{ id: number }>(sql`select connection_id() as id`);
        await db.execute(sql`kill ${row?.id ?? 0}`).catch(() => 'its own connection');

        await until(() => count > countBefore);
      });
    });

    test('statements fail while the password has expired, and succeed after it was changed', async (t) => {
      if (typeof server === 'string') return;
      const username = `expiring_${process.pid}`;
      const account = `'${username}'@'%'`;
      await server.administer(`create user ${account} identified by 'first'`);
      t.after(() => server.administer(`drop user ${account}`));
      await server.administer(`grant select on ${server.options.database}.* to ${account}`);
      let password = 'first';
      const changes = { username, password: () => password, connectMs: 1000, connectionsMax: 2 };
      await withDatabase(changes, async (db) => {
        const getOutcome = () =>
          db.query(sql`select 1 as one`).then(() => 'ok', getUnavailableReason);

        await server.administer(`alter user ${account} password expire`);
        const processes = sql`select id from information_schema.processlist where user = ${username}`;
        for (const { id } of await db.query<{ id: number }>(processes)) {
          await server.administer(`kill ${id}`).catch(() => 'it has ended meanwhile');
        }
        await until(async () => (await getOutcome()) === 'login_refused');
        password = 'second';
        await server.administer(`alter user ${account} identified by '${password}'`);

        await until(async () => (await getOutcome()) === 'ok');
      });
    });

    test('a value that is too long is refused, not truncated', () =>
      withDatabase({}, async (db) => {
        const long = 'x'.repeat(65);
        const insert = sql`insert into api_keys (id, name, key_hash, scopes, created_at)
          values (${'1'}, ${long}, ${'2'}, ${''}, ${0})`;

        await assert.rejects(
          db.execute(insert),
          /^Error: Cannot run statement: insert into api_keys/,
        );
      }));

    test('a write to a read-only database server rejects with service_unavailable', () =>
      withDatabase({ connectionsMax: 1 }, async (db) => {
        const write = sql`update log_head set seq = seq`;
        await db.transaction((tx) => tx.execute(sql`set session transaction read only`));

        await assert.rejects(
          db.transaction((tx) => tx.execute(write)),
          unavailable,
        );
      }));

    test('the database server cancels a statement that runs too long', () =>
      withDatabase({ statementMs: 2000 }, async (db) => {
        const slow = sql`select count(*) as count from information_schema.columns a,
          information_schema.columns b, information_schema.columns c`;

        await assert.rejects(db.query(slow), unavailable);
        await assert.rejects(
          db.transaction((tx) => tx.query(slow)),
          unavailable,
        );

        assert.deepEqual(await db.query(sql`select 1 as one`), [{ one: 1 }]);
      }));

    test('the transaction of a process whose host vanishes is rolled back within its deadline', () =>
      withDatabase({}, async (db) => {
        const limits = options({ connectMs: 1500, statementMs: 1500 });
        await db.execute(sql`insert into trimmed_audiences (bucket, seq) values (1, 1)`);
        const row = sql`update trimmed_audiences set seq = seq where bucket = 1`;
        // To the database server, a vanished host looks like a connection that sends nothing more.
        const silent = await connectMariadb(limits);
        silent.on('error', () => {}); // The database server ends it.
        for (const text of [...buildSessionSql(limits), buildTransactionSql(limits).before]) {
          await silent.query(text);
        }
        await executeOn(silent, row);

        assert.equal(await db.execute(row), 1); // Waits for the lock.

        silent.destroy();
      }));

    test('a statement that waits for a locked row fails at the statement limit, and is not retried', () =>
      withDatabase({}, async (db) => {
        await db.execute(sql`insert into trimmed_audiences (bucket, seq) values (2, 1)`);
        const row = sql`update trimmed_audiences set seq = seq where bucket = 2`;
        await withDatabase({ statementMs: 1000 }, async (waiting) => {
          await db.transaction(async (tx) => {
            await tx.execute(row);

            await assert.rejects(waiting.execute(row), (error: Error) => {
              assert.equal(error.name, 'service_unavailable');
              assert.doesNotMatch(error.message, /too many conflicting transactions/);
              return true;
            });
          });
        });
      }));

    test('when the database server hangs, statements are rejected and new connections are opened', async () => {
      const proxy = await openTcpProxy(options());
      const changes = { host: '127.0.0.1', port: proxy.port, connectMs: 3000, statementMs: 2000 };
      try {
        await withDatabase(changes, async (db) => {
          await Promise.all([1, 2, 3, 4].map(() => db.query(sql`select sleep(0.01)`)));
          proxy.freeze();

          const outcomes = await Promise.allSettled([
            ...Array.from({ length: 8 }, () => db.query(sql`select 1`)),
            ...Array.from({ length: 8 }, () => db.transaction((tx) => tx.query(sql`select 1`))),
          ]);

          for (const outcome of outcomes) {
            if (outcome.status === 'rejected') {
              assert.equal(outcome.reason.name, 'service_unavailable');
            }
          }
          assert.ok(outcomes.some(({ status }) => status === 'rejected'));
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
        await withDatabase({ host: '127.0.0.1', port: proxy.port }, async (db) => {
          const transaction = db.transaction(async (tx) => {
            await tx.query(sql`select 1`);
            proxy.cut();
            await tx.query(sql`select 2`);
          });

          await assert.rejects(transaction, unavailable);
          // The other connections were cut as well; the pool may hand one out before it notices.
          await until(async () => {
            const rows = await db.query(sql`select 1 as one`).catch((error: Error) => {
              assert.equal(error.name, unavailable.name);
            });
            if (rows !== undefined) assert.deepEqual(rows, [{ one: 1 }]);
            return rows !== undefined;
          });
        });
      } finally {
        await proxy.close();
      }
    });

    test('a transaction that never ends is rolled back at its deadline', () =>
      withDatabase({ connectMs: 3000, statementMs: 2000, connectionsMax: 2 }, async (db) => {
        const stuck = db.transaction(() => new Promise<never>(() => undefined));

        await assert.rejects(stuck, unavailable);
        assert.deepEqual(await db.query(sql`select 1 as one`), [{ one: 1 }]);
        assert.equal(await db.transaction(async () => 'begun'), 'begun');
      }));
  });

  describe(`opening ${dialect}`, { skip }, () => {
    const cases: [string, Partial<DatabaseServerOptions>, RegExp][] = [
      ['a closed port', { port: 1 }, /no answer from the server at .*:1 \(ECONNREFUSED\)$/],
      [
        'a missing socket',
        { host: '/run/nowhere' },
        /no answer from the server at \/run\/nowhere \(ENOENT\)$/,
      ],
      ['a missing database', { database: 'herald_test_none' }, /npm run sync/],
      ['an unknown user', { username: 'nobody_here', password: 'x' }, /refuses|may not use/],
      ['a missing schema', { database: 'mysql' }, /schema 0, need \d+: npm run sync/],
    ];
    for (const [problem, changes, message] of cases) {
      test(`open rejects with a message about ${problem}`, async () => {
        await assert.rejects(openDatabase(options(changes)), message);
      });
    }

    test('open rejects with a message about connections when the account has no connection left', async () => {
      if (typeof server === 'string') return;
      const account = `'herald_one'@'%'`;
      await server.administer(`create user ${account} with max_user_connections 1`);
      try {
        const username = { username: 'herald_one' };
        const only = await connectMariadb(options(username), { withDatabase: false });

        await assert.rejects(openDatabase(options(username)), /has no free connections/);

        await only.end();
      } finally {
        await server.administer(`drop user ${account}`);
      }
    });

    test('open rejects with the reason when the server refuses a session setting', async () => {
      if (dialect === 'mysql') return; // It takes the nearest valid value.
      await assert.rejects(openDatabase(options({ statementMs: 1e12 })), (error: Error) => {
        assert.match(
          error.message,
          /Cannot open database: the server at .* answers with error \d+$/,
        );
        assert.match(String(error.cause), /timeout|max_execution_time/);
        return true;
      });
    });

    test('open rejects when the database server stops answering after the login', async () => {
      const proxy = await openTcpProxy(options());
      try {
        proxy.silenceAfter('max_allowed_packet');
        const changes = { host: '127.0.0.1', port: proxy.port, connectMs: 1000 };
        const opening = openDatabase(options(changes));
        await assert.rejects(
          withDeadline(opening, 15_000, () => new Error('open still waits')),
          /Cannot open database: no answer from the server/,
        );
      } finally {
        await proxy.close();
      }
    });
  });
}
