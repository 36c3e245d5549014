import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { serverDialects, testOnDialects } from '../../test/support/databases/dialects.js';
import { waitForBlocked, whileLocked } from '../../test/support/databases/locks.js';
import { databaseFor } from '../../test/support/databases/test-database.js';
import { StreamProcess } from '../../test/support/stream-process.js';
import { until } from '../../test/support/until.js';
import { type Database, sql } from '../db/database.js';
import { type Logger, silentLogger } from '../logging/logger.js';
import { ClusterSync, type ClusterSyncParts } from './cluster-sync.js';
import { toOpenStream } from './open-streams/open-stream.js';
import { StreamTable } from './open-streams/stream-table.js';
import { ProcessTable } from './process-table.js';
import { UserCount } from './user-count.js';

const test = await testOnDialects('cluster sync');

const everything = { user: undefined, userPrefix: '', after: '', limit: 1000 };

/** Starts the cluster sync of a process. It is closed after the test. */
async function startProcess(
  t: TestContext,
  db: Database,
  {
    name = 'a',
    perUserMax = 10,
    ...parts
  }: { name?: string; perUserMax?: number } & Partial<
    Pick<ClusterSyncParts, 'log' | 'wallClock'>
  > = {},
) {
  const streams = await StreamProcess.open(name, { perUserMax });
  const { registry } = streams;
  const clusterSync = await ClusterSync.start({
    ...{
      db,
      requestDb: db,
      registry,
      userCount: new UserCount(registry),
      streamsPerUserMax: perUserMax,
    },
    ...{ log: silentLogger, wallClock: Date.now, monotonicClock: () => 0, ...parts },
  });
  t.after(() => clusterSync.close());
  const list = () => clusterSync.listStreams(everything);
  return { clusterSync, streams, registry, list };
}

/** Stores the rows of a process that has streams, had its last heartbeat at `seenAt`, and no longer runs. */
async function storeProcess(db: Database, id: string, seenAt: number, streamCount: number) {
  await new ProcessTable(db).insert({ id, users: 1 }, seenAt);
  const streams = await StreamProcess.open('d');
  await streams.openStreams(streamCount);
  const rows = [...streams.registry.streams].map((stream) => toOpenStream(stream, id));
  await new StreamTable(db).insert(rows);
}

async function count(db: Database, table: 'processes' | 'open_streams', id: string) {
  const rows =
    table === 'processes'
      ? await db.query(sql`select id from processes where id = ${id}`)
      : await db.query(sql`select stream_id from open_streams where process_id = ${id}`);
  return rows.length;
}

test('a process deregisters on close, and logs a warning if its row cannot be deleted', async (t) => {
  const db = await databaseFor(t);
  const warnings: unknown[] = [];
  const log: Logger = {
    ...silentLogger,
    warn(_, phrase) {
      if (phrase?.endsWith('be deregistered')) warnings.push(phrase); // Without the warnings of heartbeats.
    },
  };
  const countProcesses = async () => (await db.query(sql`select id from processes`)).length;
  const one = await startProcess(t, db, { log });
  const two = await startProcess(t, db, { name: 'b', log });
  await one.streams.openStream();
  await one.clusterSync.heartbeat();
  assert.equal(await countProcesses(), 2);
  assert.equal((await two.list()).length, 1);

  await one.clusterSync.close();
  assert.equal(await countProcesses(), 1);
  assert.deepEqual(await db.query(sql`select stream_id from open_streams`), []);
  assert.deepEqual(warnings, []);
  await db.execute(sql`alter table processes rename to elsewhere`);
  await two.clusterSync.close();
  await db.execute(sql`alter table elsewhere rename to processes`);

  assert.deepEqual(warnings, ['process could not be deregistered']);
});

test('the streams of a process are listed until 10 s after its last heartbeat', async (t) => {
  const db = await databaseFor(t);
  const time = { now: 1_800_000_000_000 };
  await storeProcess(db, 'dddddddddddddddd', time.now, 2);
  const { list } = await startProcess(t, db, { wallClock: () => time.now });

  time.now += 10_000;
  assert.equal((await list()).length, 2);
  time.now += 1;
  assert.deepEqual(await list(), []);
});

test('a process and the rows of its streams are deleted 60 s after its last heartbeat', async (t) => {
  const db = await databaseFor(t);
  const id = 'dddddddddddddddd';
  const time = { now: 1_800_000_000_000 };
  await storeProcess(db, id, time.now, 501); // Two statements.
  const { clusterSync, streams, list } = await startProcess(t, db, { wallClock: () => time.now });
  await streams.openStream();
  const countRows = async () => [
    await count(db, 'processes', id),
    await count(db, 'open_streams', id),
  ];

  time.now += 60_000;
  await clusterSync.heartbeat();
  assert.deepEqual(await countRows(), [1, 501]);
  time.now += 1;
  await clusterSync.heartbeat();

  assert.deepEqual(await countRows(), [0, 0]);
  assert.equal((await list()).length, 1);
});

test('a process that was taken for dead registers again and writes its streams again', async (t) => {
  const db = await databaseFor(t);
  const { clusterSync, streams, list } = await startProcess(t, db);
  await streams.openStreams(3);
  await clusterSync.heartbeat();
  const id = (await list())[0]?.process ?? '';

  await new StreamTable(db).delete(streams.ids.slice(0, 1)); // As another process does, after the next step.
  const dead = await new ProcessTable(db).markDead(Date.now() + 70_000);
  await clusterSync.heartbeat();
  await clusterSync.heartbeat();

  assert.deepEqual(dead, [id]);
  const listed = await list();
  assert.deepEqual(
    listed.map((stream) => stream.id),
    streams.ids,
  );
  assert.ok(listed.every(({ process }) => process !== id));
  assert.deepEqual([await count(db, 'processes', id), await count(db, 'open_streams', id)], [0, 0]);
});

test(
  'heartbeats continue while the rows of streams cannot be written',
  async (t) => {
    const db = await databaseFor(t);
    const warnings: unknown[] = [];
    const log: Logger = { ...silentLogger, warn: (_, phrase) => void warnings.push(phrase) };
    const { clusterSync, streams } = await startProcess(t, db, { log });
    const { stream } = await streams.openStream();
    await clusterSync.heartbeat();
    const lock = sql`update open_streams set unsent_bytes = 1 where stream_id = ${stream.id}`;
    const readSeenAt = async () => {
      const rows = await db.query<{ seen_at: number }>(sql`select seen_at from processes`);
      return rows[0]?.seen_at ?? 0;
    };

    await whileLocked(db, lock, async () => {
      stream.close('draining');
      await waitForBlocked(db, 'delete from open_streams');
      const seenAt = await readSeenAt();
      await until(async () => (await readSeenAt()) >= seenAt + 1000); // At least one more.
      assert.deepEqual(warnings, []); // The rows are still being written.
    });
  },
  serverDialects,
);

test('streams in other processes count towards the limit per user, from the heartbeat after theirs', async (t) => {
  const db = await databaseFor(t);
  const one = await startProcess(t, db, { name: 'a', perUserMax: 3 });
  const two = await startProcess(t, db, { name: 'b', perUserMax: 3 });
  const exchangeHeartbeats = async () => {
    await one.clusterSync.heartbeat();
    await two.clusterSync.heartbeat();
  };
  const check = (userId = '1', publicId?: string) =>
    two.registry.checkLimits({ userId, ipKey: 'ip', tokenHash: publicId && 'hash', publicId });
  await two.streams.openStream({ user: '1' });
  const { stream } = await one.streams.openStream({ user: '1', publicId: 'c'.repeat(32) });
  await exchangeHeartbeats();
  assert.equal(check(), undefined); // Two streams.

  await one.streams.openStream({ user: '1' });
  assert.equal(check(), undefined); // Not known yet.
  await exchangeHeartbeats();
  assert.equal(check(), 'user');
  assert.equal(check('2'), undefined);
  stream.close('draining');
  await exchangeHeartbeats();

  assert.equal(check(), undefined);
});

test('a client that reconnects to another process is not refused because of its own stream', async (t) => {
  const db = await databaseFor(t);
  const one = await startProcess(t, db, { name: 'a', perUserMax: 2 });
  const two = await startProcess(t, db, { name: 'b', perUserMax: 2 });
  await one.streams.openStream({ user: '1', publicId: 'c'.repeat(32) });
  await one.streams.openStream({ user: '1', publicId: 'd'.repeat(32) });
  await one.clusterSync.heartbeat();
  await two.clusterSync.heartbeat();
  const check = (publicId?: string) =>
    two.registry.checkLimits({ userId: '1', ipKey: 'ip', tokenHash: 'hash', publicId });

  assert.equal(check('c'.repeat(32)), undefined);
  assert.equal(check('e'.repeat(32)), 'user');
  assert.equal(check(), 'user');
});

test('a user who has reached the limit can move all streams to another process at once', async (t) => {
  const db = await databaseFor(t);
  const one = await startProcess(t, db, { name: 'a', perUserMax: 2 });
  const two = await startProcess(t, db, { name: 'b', perUserMax: 2 });
  const publicIds = ['c'.repeat(32), 'd'.repeat(32)];
  for (const publicId of publicIds) await one.streams.openStream({ user: '1', publicId });
  await one.clusterSync.heartbeat();
  await two.clusterSync.heartbeat();

  for (const publicId of publicIds) {
    const client = { userId: '1', ipKey: 'ip', tokenHash: publicId, publicId };
    assert.equal(two.registry.checkLimits(client), undefined);
    await two.streams.openStream({ user: '1', publicId });
  }
  assert.equal(two.registry.checkLimits({ userId: '1', ipKey: 'ip', tokenHash: 'new' }), 'user');
});

test('the streams of a process that is silent for more than 10 s do not count towards the limit per user', async (t) => {
  const db = await databaseFor(t);
  const time = { now: 1_800_000_000_000 };
  await storeProcess(db, 'dddddddddddddddd', time.now, 2);
  const wallClock = () => time.now;
  const { clusterSync, registry } = await startProcess(t, db, { perUserMax: 2, wallClock });
  await startProcess(t, db, { name: 'b', wallClock }); // So that there is another live process.
  const check = async () => {
    await clusterSync.heartbeat();
    return registry.checkLimits({ userId: '1', ipKey: 'ip', tokenHash: undefined });
  };

  assert.equal(await check(), 'user');
  time.now += 10_001;
  assert.equal(await check(), undefined);
});
