import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withDatabase } from '../src/commands/database.js';
import { loadConfig } from '../src/config/config.js';
import { sql } from '../src/db/database.js';
import { H2Client } from './support/clients/h2-client.js';
import {
  createDedicatedServer,
  type DedicatedServer,
} from './support/databases/dedicated-server.js';
import { recordedLog } from './support/recording/record.js';
import { clusterOn } from './support/servers/cluster.js';
import { openTcpProxy } from './support/tcp-proxy.js';
import { until } from './support/until.js';

/** A primary and its replica, both running. */
interface Replication {
  readonly primary: DedicatedServer;
  readonly replica: DedicatedServer;
  /** Settles when the replica has everything that is committed on the primary. */
  catchUp(): Promise<void>;
  /** Makes the primary read-only, whose connections stay open, and the replica the new primary. */
  failOver(): Promise<void>;
  /** Makes the old primary writable again, so that its database can be dropped. */
  restore(): Promise<unknown>;
}

type Rows = readonly Readonly<Record<string, unknown>>[];

async function query(server: DedicatedServer, text: string): Promise<Rows> {
  return (await server.administer(text)) as Rows;
}

async function startPostgres(): Promise<Replication | string> {
  const primary = await createDedicatedServer('postgres');
  if (typeof primary === 'string') return primary;
  await primary.start();
  const { port: primaryPort } = primary.options;
  const replica = await createDedicatedServer('postgres', { primaryPort });
  if (typeof replica === 'string') return replica;
  await replica.start();
  return {
    primary,
    replica,
    async catchUp() {
      const [head] = await query(primary, 'select pg_current_wal_lsn()::text as lsn');
      await until(async () => {
        const text = `select pg_last_wal_replay_lsn() >= '${head?.['lsn']}' as is_current`;
        return (await query(replica, text))[0]?.['is_current'] === true;
      });
    },
    async failOver() {
      await primary.administer('alter system set default_transaction_read_only = on');
      await primary.administer('select pg_reload_conf()');
      await replica.administer('select pg_promote()');
    },
    async restore() {
      await primary.administer('alter system reset default_transaction_read_only');
      await primary.administer('select pg_reload_conf()');
      await until(async () => {
        const [row] = await query(primary, 'show default_transaction_read_only');
        return row?.['default_transaction_read_only'] === 'off';
      });
    },
  };
}

async function startMariadb(): Promise<Replication | string> {
  const start = async (id: number) => {
    const args = [`--server-id=${id}`, '--log-bin=binlog', '--log-slave-updates'];
    const server = await createDedicatedServer('mariadb', { args });
    if (typeof server === 'string') return server;
    await server.start();
    return server;
  };
  const [primary, replica] = await Promise.all([start(1), start(2)]);
  if (typeof primary === 'string' || typeof replica === 'string') return 'no MariaDB programs';
  const source = `master_host = '127.0.0.1', master_port = ${primary.options.port}`;
  await replica.administer(
    `change master to ${source}, master_user = 'root', master_use_gtid = slave_pos`,
  );
  await replica.administer('start slave');
  return {
    primary,
    replica,
    async catchUp() {
      const [head] = await query(primary, 'select @@gtid_binlog_pos as gtid');
      const wait = `select master_gtid_wait('${head?.['gtid']}', 30) as result`;
      assert.equal(Number((await query(replica, wait))[0]?.['result']), 0);
    },
    async failOver() {
      await primary.administer('set global read_only = 1');
      await replica.administer('stop slave');
    },
    restore: () => primary.administer('set global read_only = 0'),
  };
}

/** Creates an account on MariaDB, because `read_only` does not apply to root. Returns its settings. */
async function createAccount(
  dialect: 'postgres' | 'mariadb',
  { primary }: Replication,
  name: string,
) {
  if (dialect === 'postgres') return {};
  await primary.administer("create user 'plain'@'%' identified by 'plain'");
  await primary.administer(`grant select, insert, update, delete on ${name}.* to 'plain'@'%'`);
  return { DB_USERNAME: 'plain', DB_PASSWORD: 'plain' };
}

for (const [dialect, start] of [
  ['postgres', startPostgres],
  ['mariadb', startMariadb],
] as const) {
  test(`${dialect}: after a failover Herald leaves the old primary although its connections are still open`, async (t) => {
    const replication = await start();
    if (typeof replication === 'string') return t.skip(replication);
    const { primary, replica } = replication;
    const target = { host: '127.0.0.1', port: primary.options.port };
    const proxy = await openTcpProxy(target); // The address that moves.
    t.after(() => proxy.close());
    t.after(() => replication.restore());
    const cluster = await clusterOn(t, primary);
    t.after(() => Promise.all([primary.remove(), replica.remove()])); // After the cluster is closed.
    const account = await createAccount(dialect, replication, primary.options.database);
    const env = { ...account, DB_HOST: '127.0.0.1', DB_PORT: String(proxy.port) };
    const app = await cluster.start(env);
    const client = await H2Client.connect(`https://127.0.0.1:${app.port}`);
    t.after(() => client.destroy());
    const stream = await client.listen('ada');
    const publish = async (data: string) => {
      const headers = { 'idempotency-key': data };
      const json = { to: 'all', data };
      return (await client.ask('POST', '/events', { bearer: cluster.apiKey, headers, json }))
        .status;
    };
    assert.equal(await publish('before'), 201);

    await replication.catchUp();
    target.port = replica.options.port;
    await replication.failOver();
    await until(async () => (await publish('after')) === 201);
    await until(async () => (await client.ask('GET', '/health/ready')).status === 200);
    await client.login('bob');
    await stream.until(() => stream.dataByType('message')[1]);

    assert.deepEqual(stream.dataByType('message'), ['before', 'after']);
    assert.equal(stream.isEnded, false);
    const stored = { ...cluster.env, DB_PORT: String(replica.options.port) };
    const rows = await withDatabase(loadConfig(stored), recordedLog, (db) =>
      db.query<{ data: string }>(sql`select data from events where control is null and seq > 0`),
    );
    assert.deepEqual(
      rows.map(({ data }) => data),
      ['before', 'after'],
    );
  });
}
