import assert from 'node:assert/strict';
import { after, before, describe, type TestContext, test } from 'node:test';
import { withDatabase } from '../../../src/commands/database.js';
import { loadConfig } from '../../../src/config/config.js';
import { sql } from '../../../src/db/database.js';
import { H2Client, type H2Stream } from '../clients/h2-client.js';
import { Publisher, PublishLoad } from '../clients/publish-load.js';
import { recordedLog } from '../recording/record.js';
import { type Cluster, clusterOn } from '../servers/cluster.js';
import { getPassword } from '../servers/seed.js';
import { openTcpProxy } from '../tcp-proxy.js';
import { until } from '../until.js';
import { createDedicatedServer, type DedicatedServer } from './dedicated-server.js';
import { serverDialects } from './dialects.js';
import { findServer, type ServerDialect, type TestServer } from './test-server.js';

/**
 * Short, so that a test does not wait long for a deadline, but longer than a machine may stall, because
 * these deadlines also apply to each start and login.
 */
const shortDeadlines = { DB_CONNECT_TIMEOUT: '2500', DB_STATEMENT_TIMEOUT: '2500' };

/**
 * Time for which a process is cut off from its database. The default is longer than every reaction to the
 * cut. The slowest reactions are the connection that listens for notifications (15 s) and the end of a replaced
 * PostgreSQL client (10 s after a statement is given up, which takes 5 s). Only `CUT_OFF_MS=61000` or more
 * makes the other processes forget this one.
 */
const cutOffMs = Number(process.env['CUT_OFF_MS'] ?? 17_000);

/** One process of a cluster, with a client that publishes to it and an open stream. */
interface ClusterNode {
  readonly backend: H2Client;
  readonly stream: H2Stream;
}

interface FaultScenario {
  readonly cluster: Cluster;
  readonly key: string;
  startNode(env?: Readonly<Record<string, string>>): Promise<ClusterNode>;
}

async function createScenario(
  t: TestContext,
  server: Parameters<typeof clusterOn>[1],
): Promise<FaultScenario> {
  const cluster = await clusterOn(t, server);
  return {
    cluster,
    key: cluster.apiKey,
    async startNode(env = {}) {
      const app = await cluster.start({ ...shortDeadlines, ...env });
      const backend = await H2Client.connect(`https://127.0.0.1:${app.port}`);
      t.after(() => backend.destroy());
      const stream = await backend.listenAs(await backend.accessToken('ada'));
      return { backend, stream };
    },
  };
}

async function getStatus({ backend }: ClusterNode, path: string): Promise<number> {
  return (await backend.ask('GET', path)).status;
}

/** Settles once `/health/ready` of the node returns this status. */
function waitForReadiness(node: ClusterNode, status: number): Promise<void> {
  return until(async () => (await getStatus(node, '/health/ready')) === status);
}

/** Settles once `/health/ready` of the node names this reason. */
function waitForReason({ backend }: ClusterNode, reason: string): Promise<void> {
  return until(async () => {
    const { body } = await backend.ask('GET', '/health/ready');
    return JSON.stringify(body['reasons']) === JSON.stringify({ database: reason });
  });
}

/** Asserts that each stream is open and received every published event once, in order and without a gap. */
async function assertNoLoss(nodes: readonly ClusterNode[], publishers: readonly Publisher[]) {
  const ids = publishers.flatMap((publisher) => publisher.ids);
  assert.equal(new Set(ids).size, ids.length, 'a sequence number was assigned twice');
  const [epoch] = (ids[0] ?? '').split('-');
  const all = ids.map((_, index) => `${epoch}-${index + 1}`);
  for (const { stream } of nodes) {
    await stream.until(() => stream.ids.length >= ids.length || undefined);
    assert.deepEqual(stream.ids, all);
    assert.equal(stream.isEnded, false);
  }
  assert.deepEqual(new Set(ids), new Set(all));
}

/**
 * Tests faults of one dialect's database server. Each dialect has its own test file, so that the tests of several
 * dialects run in parallel, because they mostly wait.
 */
export async function testFaults(dialect: ServerDialect): Promise<void> {
  const dedicated = await createDedicatedServer(dialect);
  const skip = typeof dedicated === 'string' ? dedicated : false;

  describe(`${dialect} with faults`, { skip }, () => {
    const server = dedicated as DedicatedServer; // Otherwise the tests are skipped.
    before(() => server.start());
    after(() => server.remove());

    test('a database crash under load yields 503 and loses no acknowledged event', async (t) => {
      const { key, startNode } = await createScenario(t, server);
      const nodes = [await startNode(), await startNode()];
      const load = PublishLoad.start(nodes, { perTarget: 8, key });
      await load.waitForAcknowledged(3);

      await server.crash();
      await Promise.all(nodes.map((node) => waitForReadiness(node, 503)));
      await waitForReason(nodes[0] as ClusterNode, 'unreachable');
      assert.equal(await getStatus(nodes[0] as ClusterNode, '/health/live'), 200);
      await load.waitForRefusals();
      await server.start();
      await Promise.all(nodes.map((node) => waitForReadiness(node, 200)));
      await load.waitForAcknowledged(3);
      await load.stop();

      await assertNoLoss(nodes, load.publishers);
    });

    test('a hanging database yields 503 within the deadline, then service resumes', async (t) => {
      const { key, startNode } = await createScenario(t, server);
      const nodes = [await startNode(), await startNode()];
      const load = PublishLoad.start(nodes, { perTarget: 1, key });
      await load.waitForAcknowledged(3);

      server.freeze();
      await Promise.all(nodes.map((node) => waitForReadiness(node, 503)));
      await load.waitForRefusals();
      const login = { json: { username: 'ada', password: getPassword('ada') } };
      const { backend } = nodes[0] as ClusterNode;
      assert.equal((await backend.ask('POST', '/login', login)).status, 503);
      await waitForReason(nodes[0] as ClusterNode, 'timeout');
      server.thaw();
      await Promise.all(nodes.map((node) => waitForReadiness(node, 200)));
      await load.waitForAcknowledged(3);
      await load.stop();

      await assertNoLoss(nodes, load.publishers);
    });

    test('Herald stops on SIGTERM while its database hangs', async (t) => {
      const { cluster, key } = await createScenario(t, server);
      const longDeadlines = { DB_CONNECT_TIMEOUT: '60000', DB_STATEMENT_TIMEOUT: '60000' };
      const launched = await cluster.launch({ ...longDeadlines, DRAIN_TIMEOUT: '2000' });
      const client = await H2Client.connect(launched.url);
      t.after(() => client.destroy());
      await client.listen('ada');

      server.freeze();
      const json = { to: 'all', data: 'never stored' };
      const publishing = client
        .ask('POST', '/events', { bearer: key, json })
        .catch(() => 'cut off');
      await client.ask('GET', '/health/live'); // When this is answered, the earlier request has arrived, too.
      const startedAt = performance.now();
      const code = await launched.end('SIGTERM');
      const ms = performance.now() - startedAt;
      server.thaw();

      assert.equal(code, 0);
      assert.ok(ms < 60_000, `${ms} ms`); // The deadlines of the database are a minute each.
      assert.equal(await publishing, 'cut off');
    });

    test('a read-only database makes Herald not ready and closes no stream', async (t) => {
      const { cluster, key, startNode } = await createScenario(t, server);
      const node = await startNode(await createUnprivilegedAccount(cluster, dialect));
      const load = PublishLoad.start([node], { perTarget: 2, key });
      await load.waitForAcknowledged(3);

      await setReadOnly(cluster, dialect, true);
      await load.waitForRefusals();
      await waitForReadiness(node, 503);
      await waitForReason(node, 'read_only');
      const { body } = await node.backend.ask('GET', '/health/ready');
      await setReadOnly(cluster, dialect, false);
      await waitForReadiness(node, 200);
      await load.waitForAcknowledged(3);
      await load.stop();

      assert.deepEqual(body['checks'], { serving: 'ok', database: 'failing', logins: 'ok' });
      await assertNoLoss([node], load.publishers);
    });

    test('repeatedly killed database connections cause at most a 503', async (t) => {
      const { cluster, key, startNode } = await createScenario(t, server);
      const nodes = [await startNode(), await startNode()];
      const load = PublishLoad.start(nodes, { perTarget: 4, key });

      for (let round = 1; round <= 5; round += 1) {
        await load.waitForAcknowledged(1);
        await killConnections(cluster, dialect);
      }
      await load.waitForAcknowledged(1);
      await load.stop();

      await assertNoLoss(nodes, load.publishers);
    });
  });
}

/**
 * Tests on each dialect that a process cut off from its database catches up. The tests of all dialects run at the
 * same time, because they mostly wait.
 */
export async function testCutOffs(): Promise<void> {
  const servers = await Promise.all(serverDialects.map(findServer));

  describe('a process cut off from its database', { concurrency: true }, () => {
    for (const [index, dialect] of serverDialects.entries()) {
      const server = servers[index];
      test(`${dialect}: a process cut off from the database catches up without a gap`, {
        skip: typeof server === 'string' ? server : false,
      }, async (t) => {
        if (typeof server !== 'object') return;
        await catchUpAfterCutOff(t, server);
      });
    }
  });
}

async function catchUpAfterCutOff(t: TestContext, shared: TestServer): Promise<void> {
  const { host, port } = shared.options;
  const proxy = await openTcpProxy({ host, port });
  t.after(() => proxy.close());
  const { key, startNode } = await createScenario(t, shared);
  const connected = await startNode();
  const cutOff = await startNode({ DB_HOST: '127.0.0.1', DB_PORT: String(proxy.port) });
  const publisher = new Publisher('connected', connected, key);
  await publisher.publishWhile(() => publisher.ids.length < 10);

  const cutAt = performance.now();
  const hasBeenCutFor = (ms: number) => () => performance.now() - cutAt >= ms;
  proxy.silence(); // First the network drops all packets, then it refuses connections (`block`).
  await waitForReadiness(cutOff, 503);
  await publisher.publishWhile(() => publisher.ids.length < 700); // More events than one poll reads.
  await until(hasBeenCutFor(cutOffMs / 2));
  proxy.block();
  await until(hasBeenCutFor(cutOffMs));
  assert.equal(await getStatus(cutOff, '/health/ready'), 503);
  assert.equal(cutOff.stream.isEnded, false);
  proxy.unblock();
  await waitForReadiness(cutOff, 200);

  await assertNoLoss([connected, cutOff], [publisher]);
  const secondPublisher = new Publisher('cut-off', cutOff, key);
  await secondPublisher.publishWhile(() => secondPublisher.ids.length < 3);
  await assertNoLoss([connected, cutOff], [publisher, secondPublisher]);
}

/** Makes the database server read-only, as a former primary is after a failover, or writable again. */
async function setReadOnly({ administer }: Cluster, dialect: ServerDialect, isOn: boolean) {
  if (dialect !== 'postgres') return administer(`set global read_only = ${isOn ? 1 : 0}`);
  await administer(`alter system set default_transaction_read_only = ${isOn ? 'on' : 'off'}`);
  return administer('select pg_reload_conf()');
}

/**
 * Creates an account with exactly the privileges that docs/databases.md requires, because `read_only`
 * does not apply to root on MariaDB and MySQL. Returns the settings that make Herald use it.
 */
export async function createUnprivilegedAccount(
  { administer, env }: Cluster,
  dialect: ServerDialect,
) {
  if (dialect === 'postgres') {
    await administer("create role plain login password 'plain'");
    await withDatabase(loadConfig(env), recordedLog, async (db) => {
      await db.execute(sql`grant usage on schema public to plain`);
      await db.execute(
        sql`grant select, insert, update, delete on all tables in schema public to plain`,
      );
    });
  } else {
    for (const account of ["'plain'@'%'", "'plain'@'localhost'"]) {
      await administer(`create user if not exists ${account} identified by 'plain'`);
      await administer(`grant select, insert, update, delete on ${env['DB_NAME']}.* to ${account}`);
    }
  }
  return { DB_USERNAME: 'plain', DB_PASSWORD: 'plain' };
}

export async function killConnections(cluster: Cluster, dialect: ServerDialect) {
  const { DB_NAME: name } = cluster.env;
  if (dialect === 'postgres') {
    await cluster.administer(
      `select pg_terminate_backend(pid) from pg_stat_activity where datname = '${name}'`,
    );
    return;
  }
  const rows = (await cluster.administer(
    `select id from information_schema.processlist where db = '${name}'`,
  )) as { id?: number; ID?: number }[];
  for (const { id, ID } of rows) {
    await cluster.administer(`kill ${id ?? ID}`).catch(() => undefined); // It may have ended meanwhile.
  }
}
