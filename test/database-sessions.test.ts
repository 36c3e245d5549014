import assert from 'node:assert/strict';
import { type AddressInfo, connect, createServer } from 'node:net';
import { after, before, describe, type TestContext, test } from 'node:test';
import { withAccounts } from '../src/commands/accounts.js';
import { loadConfig } from '../src/config/config.js';
import { migrate, readSchemaStatus } from '../src/db/migrations/migrate.js';
import { openDatabase } from '../src/db/open.js';
import { H2Client } from './support/clients/h2-client.js';
import {
  createDedicatedServer,
  type DedicatedServer,
} from './support/databases/dedicated-server.js';
import { findServer } from './support/databases/test-server.js';
import { type Cluster, clusterOn } from './support/servers/cluster.js';
import type { Env } from './support/servers/seed.js';

const text = 'Zoë 🐝 ключ \\ \' " %';

/** Asserts that two processes store and read all text, publish side by side, and obey the command line. */
async function assertWorks(t: TestContext, cluster: Cluster, env: Env): Promise<void> {
  const { apiKey, userIds } = cluster;
  const startProcess = async () => {
    const { port } = await cluster.start(env);
    const client = await H2Client.connect(`https://127.0.0.1:${port}`);
    t.after(() => client.destroy());
    return client;
  };
  const [one, two] = [await startProcess(), await startProcess()];
  const stream = await two.listen('ada');
  const { id: beginning } = await stream.opening();
  const publish = async (client: H2Client, data: string) => {
    const json = { to: { users: [userIds.ada] }, data };
    return client.ask('POST', '/events', { bearer: apiKey, json });
  };

  const answers = await Promise.all(
    Array.from({ length: 40 }, (_, index) => publish(index % 2 ? one : two, `${text} ${index}`)),
  );
  assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([201]));
  await stream.until(() => stream.dataByType('message')[39]);
  // A new process reads the events from the database.
  const later = await startProcess();
  const resumed = await later.listen('ada', { 'last-event-id': beginning });
  await resumed.until(() => resumed.dataByType('message')[39]);
  const expected = answers.map((_, index) => `${text} ${index}`).sort();
  assert.deepEqual(stream.dataByType('message').sort(), expected);
  assert.deepEqual(resumed.dataByType('message').sort(), expected);

  await withAccounts(loadConfig({ ...cluster.env, ...env }), ({ apiKeys }) =>
    apiKeys.revoke('tests'),
  );
  assert.equal((await publish(one, 'never')).status, 401);
}

for (const dialect of ['mariadb', 'mysql'] as const) {
  // A MariaDB can report any version, as proxies do.
  const args = dialect === 'mariadb' ? ['--version=8.0.36'] : [];
  const dedicated = await createDedicatedServer(dialect, { args });
  const prefix = dialect === 'mysql' ? 'transaction' : 'tx';

  describe(`${dialect} with other defaults`, {
    skip: typeof dedicated === 'string' ? dedicated : false,
  }, () => {
    const server = dedicated as DedicatedServer; // Otherwise the tests are skipped.
    before(() => server.start());
    after(() => server.remove());

    test('Herald works on a server whose sessions have other defaults', async (t) => {
      for (const setting of [
        'autocommit = 0',
        "completion_type = 'CHAIN'",
        "sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'",
        `${prefix}_isolation = 'SERIALIZABLE'`,
        "time_zone = '+09:00'",
        'max_join_size = 1',
        'sql_select_limit = 10',
        'unique_checks = 0',
        "init_connect = 'set names latin1, autocommit = 0, sql_safe_updates = 1'",
      ]) {
        await server.administer(`set global ${setting}`);
      }
      const cluster = await clusterOn(t, server);
      // `init_connect` does not apply to root.
      await server.administer("create user 'plain'@'%' identified by 'plain'");
      await server.administer(`grant all on ${cluster.env['DB_NAME']}.* to 'plain'@'%'`);

      const account = { DB_USERNAME: 'plain', DB_PASSWORD: 'plain' };
      await assertWorks(t, cluster, account);
    });

    test('a server whose transactions are read-only by default is refused at start', async () => {
      await migrate(server.options);
      await server.administer(`set global ${prefix}_read_only = 1`);
      const message = /Cannot open database: its transactions are read-only by default: set global/;

      await assert.rejects(openDatabase(server.options), message);
      await assert.rejects(migrate(server.options), message);

      await server.administer(`set global ${prefix}_read_only = 0`);
    });
  });

  const shared = await findServer(dialect);
  const other = dialect === 'mariadb' ? 'mysql' : 'mariadb';

  test(`${dialect}: start and \`sync\` with DB_DIALECT=${other} fail and name the dialect to set`, {
    skip: typeof shared === 'string' ? shared : false,
  }, async (t) => {
    if (typeof shared === 'string') return;
    t.after(() => shared.drop());
    await migrate(shared.options);

    const options = { ...shared.options, dialect: other } as const;
    const name = dialect === 'mariadb' ? 'MariaDB' : 'MySQL';
    const message = `Cannot open database: the server is ${name}: set DB_DIALECT=${dialect}, not ${other}`;
    await assert.rejects(openDatabase(options), { message });
    await assert.rejects(migrate(options), { message });
  });
}

const postgres = await findServer('postgres');
const skip = typeof postgres === 'string' ? postgres : false;

test('postgres: Herald works on a database whose sessions have other defaults', {
  skip,
}, async (t) => {
  if (typeof postgres === 'string') return;
  const cluster = await clusterOn(t, postgres);
  for (const setting of [
    "default_transaction_isolation = 'serializable'",
    "client_encoding = 'LATIN1'",
    'standard_conforming_strings = off',
    "timezone = 'Asia/Tokyo'",
    "statement_timeout = '1ms'",
    "idle_session_timeout = '1ms'",
  ]) {
    await cluster.administer(`alter database ${cluster.env['DB_NAME']} set ${setting}`);
  }

  await assertWorks(t, cluster, {});
});

for (const [setting, message] of [
  ["search_path = ''", /search_path names no schema of .*: alter role … set search_path = public/],
  [
    'synchronous_commit = off',
    /synchronous_commit is off, .*: alter role … set synchronous_commit = on/,
  ],
  [
    'default_transaction_read_only = on',
    /its transactions are read-only: set DB_HOST to the primary/,
  ],
] as const) {
  test(`postgres: start and \`sync\` refuse ${setting}, and say what to set`, {
    skip,
  }, async (t) => {
    const server = await findServer('postgres');
    if (typeof server === 'string') return;
    t.after(() => server.drop());
    await migrate(server.options);
    await server.administer(`alter database ${server.options.database} set ${setting}`);

    await assert.rejects(openDatabase(server.options), message);
    await assert.rejects(migrate(server.options), message);
    // `sync -- --status` writes nothing.
    assert.ok(await readSchemaStatus(server.options));
  });
}

test('postgres: behind a pooler, a default that Herald cannot set is refused at start', {
  skip,
}, async (t) => {
  const server = await findServer('postgres');
  if (typeof server === 'string') return;
  t.after(() => server.drop());
  await migrate(server.options);
  const { database } = server.options;
  await server.administer(
    `alter database ${database} set default_transaction_isolation = 'repeatable read'`,
  );

  await assert.rejects(
    openDatabase({ ...server.options, prepare: false }),
    /default_transaction_isolation is "repeatable read", not "read committed": alter role/,
  );
});

test('postgres: a database that is not UTF-8 is refused at start, and `sync` creates a database in UTF-8', {
  skip,
}, async (t) => {
  const server = await findServer('postgres');
  if (typeof server === 'string') return;
  t.after(() => server.drop());
  const { database } = server.options;
  const encoding = "encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'";
  await server.administer(`create database ${database} template template0 ${encoding}`);

  await assert.rejects(
    openDatabase(server.options),
    /has the encoding LATIN1, not UTF8: create it/,
  );
  await assert.rejects(migrate(server.options), /has the encoding LATIN1, not UTF8: create it/);

  await server.drop();
  await migrate(server.options);
  await (await openDatabase(server.options)).close();
});

for (const dialect of ['postgres', 'mariadb', 'mysql'] as const) {
  const server = await findServer(dialect);

  test(`${dialect}: DB_HOST can be an IPv6 address`, {
    skip: typeof server === 'string' ? server : false,
  }, async (t) => {
    if (typeof server === 'string') return;
    const { host, port } = server.options;
    const relay = createServer((client) => {
      const target = connect(port, host);
      for (const socket of [client, target]) socket.on('error', () => {}); // The other end notices.
      client.pipe(target).pipe(client);
    });
    await new Promise<void>((resolve) => relay.listen(0, '::1', resolve));
    t.after(() => relay.close());
    t.after(() => server.drop());
    const address = relay.address() as AddressInfo; // Safe: it listens on TCP.
    const options = { ...server.options, host: '::1', port: address.port };

    await migrate(options);
    await (await openDatabase(options)).close();
  });
}
