import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { test } from 'node:test';
import { databaseFor } from '../../../test/support/databases/test-database.js';
import { StreamProcess } from '../../../test/support/stream-process.js';
import { until } from '../../../test/support/until.js';
import { type Database, sql } from '../../db/database.js';
import { silentLogger } from '../../logging/logger.js';
import { ProcessTable } from '../process-table.js';
import { ClusterStreams } from './cluster-streams.js';
import { toOpenStream } from './open-stream.js';
import { StreamTable } from './stream-table.js';

const [own, other] = ['aaaaaaaaaaaaaaaa', 'bbbbbbbbbbbbbbbb'];

/** Stores streams of another process. */
async function storeStreams(db: Database, count: number): Promise<void> {
  const streams = await StreamProcess.open('b');
  await streams.openStreams(count);
  const rows = [...streams.registry.streams].map((stream) => toOpenStream(stream, other));
  await new StreamTable(db).insert(rows);
}

async function openCluster(t: TestContext, monotonicClock = () => 0) {
  const db = await databaseFor(t);
  const warnings: string[] = [];
  const { registry } = await StreamProcess.open('a', { perUserMax: 1 });
  const countRemote = () => registry.remoteStreams.count('1', []);
  const cluster = new ClusterStreams(
    {
      ...{ table: new StreamTable(db), processes: new ProcessTable(db), registry },
      log: { ...silentLogger, warn: (_, phrase) => void warnings.push(phrase ?? '') },
      ...{ streamsPerUserMax: 1, monotonicClock },
    },
    own,
  );
  return { db, cluster, countRemote, warnings };
}

test('one exchange deletes 5000 rows of dead processes, and the next exchange deletes the others', async (t) => {
  const { db, cluster } = await openCluster(t);
  await new ProcessTable(db).insert({ id: other, users: 1 }, 1);
  await storeStreams(db, 5001);
  const deleteDead = async () => {
    await cluster.exchange({ live: [], dead: [other] });
    const rows = await db.query(sql`select stream_id from open_streams`);
    const processes = await db.query(sql`select id from processes`);
    return [rows.length, processes.length];
  };

  assert.deepEqual(await deleteDead(), [1, 1]);
  assert.deepEqual(await deleteDead(), [0, 0]);
});

test('reading the streams of users at the limit takes at most 5 % of the time', async (t) => {
  const time = { now: 0, readingMs: 0 };
  const monotonicClock = () => {
    time.now += time.readingMs; // Each reading calls the clock before and after.
    return time.now;
  };
  const { db, cluster, countRemote } = await openCluster(t, monotonicClock);
  const exchangeAt = async (now: number, readingMs: number) => {
    Object.assign(time, { now: now - readingMs, readingMs });
    await cluster.exchange({ live: [other], dead: [] });
    return countRemote();
  };

  assert.equal(await exchangeAt(1000, 100), 0); // From 1000 to 1100.
  await storeStreams(db, 1);

  assert.equal(await exchangeAt(2999, 0), 0);
  assert.equal(await exchangeAt(3000, 0), 1);
});

test('without another live process, no stream counts as remote', async (t) => {
  const { db, cluster, countRemote } = await openCluster(t);
  await storeStreams(db, 1);
  await cluster.exchange({ live: [other], dead: [] });
  assert.equal(countRemote(), 1);

  await cluster.exchange({ live: [], dead: [] });

  assert.equal(countRemote(), 0);
});

test('an outage is logged once, and does not prevent later exchanges', async (t) => {
  const { db, cluster, countRemote, warnings } = await openCluster(t);
  await storeStreams(db, 1);
  const start = async () => {
    cluster.start({ live: [other], dead: [] });
    await cluster.idle();
    await new Promise((resolve) => setImmediate(resolve));
  };
  await db.execute(sql`alter table open_streams rename to elsewhere`);
  await start();
  await start();
  await db.execute(sql`alter table elsewhere rename to open_streams`);
  await start();

  await until(() => countRemote() === 1);
  assert.deepEqual(warnings, ['open streams could not be exchanged, retrying']);
});
