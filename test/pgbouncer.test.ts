import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { sql } from '../src/db/database.js';
import { migrate } from '../src/db/migrations/migrate.js';
import { openDatabase } from '../src/db/open.js';
import type { DatabaseServerOptions } from '../src/db/options.js';
import { H2Client } from './support/clients/h2-client.js';
import { describeDatabase } from './support/databases/database-contract.js';
import { findServer, type TestServer } from './support/databases/test-server.js';
import { freePort } from './support/free-port.js';
import { clusterOn } from './support/servers/cluster.js';
import { until } from './support/until.js';

const command = ['pgbouncer', '/usr/sbin/pgbouncer'].find(
  (name) => spawnSync(name, ['--version']).status === 0,
);
const server = await findServer('postgres');
const skip = getSkipReason();

function getSkipReason(): string | false {
  if (command === undefined) return 'NO PGBOUNCER: run test/programs.sh as root';
  return typeof server === 'string' ? server : false;
}

/**
 * Connections of the pooler to PostgreSQL: as many as a pool of the database contract has. In the other tests
 * two pools of 10 share them.
 */
const serverConnections = 4;

/**
 * Starts PgBouncer with Debian's settings except for access and pooling: nothing is adapted to Herald. When
 * other tests use all connections of PostgreSQL, the pooler retries after one second instead of 15.
 */
async function startPooler(
  { host, port, username, password }: DatabaseServerOptions,
  settings: string,
): Promise<Pooler> {
  const listenPort = await freePort();
  const folder = mkdtempSync(join(tmpdir(), 'herald-pgbouncer-'));
  chmodSync(folder, 0o755); // The pooler reads it as `nobody`, not as root.
  writeFileSync(join(folder, 'users'), `"${username}" "${password}"\n`);
  writeFileSync(
    join(folder, 'settings'),
    `[databases]
    * = host=${host} port=${port}
    [pgbouncer]
    listen_addr = 127.0.0.1
    listen_port = ${listenPort}
    unix_socket_dir =
    auth_type = trust
    auth_file = ${join(folder, 'users')}
    default_pool_size = ${serverConnections}
    server_login_retry = 1
    max_client_conn = 100
    ${settings}`,
  );
  const user = process.getuid?.() === 0 ? ['-u', 'nobody'] : [];
  const pooler = spawn(command ?? '', [...user, join(folder, 'settings')]);
  process.once('exit', () => pooler.kill());
  let output = '';
  pooler.stderr.on('data', (text) => {
    output += text;
  });
  await until(() => {
    if (pooler.exitCode !== null) throw new Error(`pgbouncer did not start: ${output}`);
    return output.includes('process up');
  });
  return {
    port: listenPort,
    async stop() {
      const closed = once(pooler, 'close');
      pooler.kill();
      await closed;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

interface Pooler {
  readonly port: number;
  stop(): Promise<void>;
}

/** Returns the options of a test server behind a pooler. */
function routeThrough(pooler: Pooler, options: DatabaseServerOptions): DatabaseServerOptions {
  return { ...options, host: '127.0.0.1', port: pooler.port };
}

describe('postgres behind a transaction pooler', { skip }, () => {
  let pooler: Pooler;
  let pooled: TestServer;

  /** Routes a test server through the pooler. Creates the database, because the pooler hides a missing one. */
  async function routeThroughPooler(testServer: TestServer | string): Promise<TestServer> {
    if (typeof testServer === 'string') throw new Error(testServer);
    const { options, ...rest } = testServer;
    await testServer.administer(`create database ${options.database}`);
    return { ...rest, options: { ...routeThrough(pooler, options), prepare: false } };
  }

  before(async () => {
    if (typeof server === 'string') throw new Error(server);
    pooler = await startPooler(server.options, 'pool_mode = transaction');
    pooled = await routeThroughPooler(server);
    await migrate(pooled.options);
  });

  after(async () => {
    await pooler.stop();
    if (typeof server !== 'string') await server.drop();
  });

  describeDatabase('postgres', () => openDatabase(pooled.options));

  test('each of many concurrent statements gets its own result', async (t) => {
    const databases = await Promise.all(
      [1, 2].map(() => openDatabase({ ...pooled.options, connectionsMax: 10 })),
    );
    t.after(() => Promise.all(databases.map((db) => db.close())));
    // A statement with parameters takes two messages, even after a statement without parameters.
    const queryPair = (number: number) => {
      const db = databases[number % 2];
      return [
        db?.query({ texts: [`select ${number} as number`], values: [] }),
        db?.query(sql`select cast(${number} as integer) as number`),
      ];
    };

    for (let round = 0; round < 20; round += 1) {
      const numbers = Array.from({ length: 50 }, (_, index) => index);
      const answers = await Promise.all(numbers.flatMap(queryPair));

      assert.deepEqual(
        answers,
        numbers.flatMap((number) => [[{ number }], [{ number }]]),
      );
    }
  });

  test('two processes behind a pooler deliver every event once and in order', async (t) => {
    const cluster = await clusterOn(t, await routeThroughPooler(await findServer('postgres')));
    assert.equal(cluster.env['DB_PREPARE'], 'false');
    const env = { DB_CONNECTIONS: '10' };
    const apps = [await cluster.start(env), await cluster.start(env)];
    const clients = await Promise.all(
      apps.map(({ port }) => H2Client.connect(`https://127.0.0.1:${port}`)),
    );
    t.after(() => {
      for (const client of clients) client.destroy();
    });
    const streams = await Promise.all(
      clients.map(async (client) => client.listenAs(await client.accessToken('ada'))),
    );

    const numbers = Array.from({ length: 100 }, (_, index) => index);
    await Promise.all(
      numbers.map((number) =>
        until(async () => {
          const answer = await clients[number % 2]?.ask('POST', '/events', {
            bearer: cluster.apiKey,
            json: { to: 'all', data: number },
            headers: { 'idempotency-key': String(number) },
          });
          if (answer?.status === 503) return false; // No connection in time: retry.
          assert.equal(answer?.status, 201);
          return true;
        }),
      ),
    );

    for (const stream of streams) {
      await stream.until(() => stream.ids.length >= 100 || undefined);
      assert.deepEqual(
        stream.ids.map((id) => Number(id.split('-')[1])),
        numbers.map((number) => number + 1),
      );
    }
  });
});

test('a pooler in session mode that refuses session settings is reported at start and by `sync`', {
  skip,
}, async (t) => {
  const testServer = await findServer('postgres');
  if (typeof testServer === 'string') return;
  const { options, drop } = testServer;
  t.after(drop);
  await migrate(options);
  const pooler = await startPooler(options, 'pool_mode = session');
  t.after(() => pooler.stop());
  const pooled = routeThrough(pooler, options);
  const message =
    /Cannot open database: a pooler in between refuses session settings: set DB_PREPARE=/;

  await assert.rejects(openDatabase(pooled), message);
  await assert.rejects(migrate(pooled), message);
  await (await openDatabase({ ...pooled, prepare: false })).close();
});

test('a pooler that ignores session settings is reported at start, even if the database sets the same time limits', {
  skip,
}, async (t) => {
  const testServer = await findServer('postgres');
  if (typeof testServer === 'string') return;
  const { options, administer, drop } = testServer;
  t.after(drop);
  await migrate(options);
  // As docs/databases.md recommends.
  await administer(`alter database ${options.database} set statement_timeout = '15s'`);
  const ignored = [
    ...['statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout'],
    ...['idle_session_timeout', 'default_transaction_isolation', 'herald.process'],
  ];
  const pooler = await startPooler(
    options,
    `pool_mode = transaction
    ignore_startup_parameters = ${ignored.join(',')}`,
  );
  t.after(() => pooler.stop());

  await assert.rejects(
    openDatabase({ ...routeThrough(pooler, options), statementMs: 15_000 }),
    /Cannot open database: a pooler in between ignores session settings: set DB_PREPARE=false/,
  );
});
