import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { SimulatedClient } from '../../test/support/clients/simulated-client.js';
import { databaseFor } from '../../test/support/databases/embedded.js';
import { sql } from '../db/database.js';
import { EventLog } from '../event-log/event-log.js';
import { SqlLogStore } from '../event-log/sql/sql-log-store.js';
import { silentLogger } from '../logging/logger.js';
import { Metrics } from '../metrics.js';
import { Registry } from './registry.js';
import { StreamTokens } from './stream-token.js';
import { type LiveSession, Streams } from './streams.js';
import { UserCount } from './user-count.js';

const limits = {
  ...{ streamsMax: 10, perUserMax: 10, perIpMax: 10 },
  ...{ heartbeatMs: 15_000, stallMs: 30_000, retryMs: 2000 },
  ...{ unsentSoftBytes: 500, unsentHardBytes: 2000 },
};

const nextTick = () => new Promise((resolve) => setImmediate(resolve));

/** A stream of one session that may begin, and `liveSession` as the test wants it. */
async function prepareStream(
  t: TestContext,
  findLiveSession: () => Promise<LiveSession | undefined>,
) {
  const db = await databaseFor(t);
  const time = { now: 1_000_000, up: 0 };
  const wallClock = () => time.now;
  const monotonicClock = () => time.up;
  const store = await SqlLogStore.open(db, { wallClock, newEpoch: 'e' });
  const logLimits = { ageMaxMs: 1e9, eventsMax: 1e9, bytesMax: 1e9 };
  const eventLog = await EventLog.open({ store, log: silentLogger, wallClock, limits: logLimits });
  const registry = new Registry({ limits, monotonicClock });
  const times = { lifeMs: 1000, resumeWindowMs: 1e6, mode: 'resume' } as const;
  const tokens = new StreamTokens({ db, wallClock, ...times });
  const userCount = new UserCount(registry);
  const parts = {
    registry,
    userCount,
    eventLog,
    tokens,
    findLiveSession,
    limits,
    wallClock,
    monotonicClock,
  };
  const streams = new Streams({
    ...{ ...parts, metrics: new Metrics(), log: silentLogger, random: () => 0 },
  });
  const client = new SimulatedClient('1');
  const session = await streams.snapshotSession('s');
  const request = { session, token: undefined, lastEventId: undefined, ip: 'ip', requestId: 'r' };
  const prepared = await streams.prepare(request);
  /** A second or an hour later; the client takes what it is sent. */
  const tickAt = async (now: number) => {
    client.sink?.acceptBytes(1e6);
    time.now = now;
    streams.tick();
    client.sink?.acceptBytes(1e6);
    await nextTick();
  };
  return { prepared, tickAt, registry, client, time, streams, eventLog, db, tokens, request };
}

/** The same, open. */
async function openStream(t: TestContext, findLiveSession: () => Promise<LiveSession | undefined>) {
  const { prepared, ...rest } = await prepareStream(t, findLiveSession);
  prepared.open(rest.client.connect());
  return rest;
}

test('an expired session is looked up once, however long the lookup takes', async (t) => {
  let lookUps = 0;
  const waiting: (() => void)[] = [];
  const { tickAt, registry } = await openStream(t, () => {
    lookUps += 1;
    const found = { id: 's', userId: '1', expiresAt: lookUps === 1 ? 1_060_000 : 1_200_000 };
    if (lookUps === 1) return Promise.resolve(found);
    return new Promise((resolve) => waiting.push(() => resolve(found)));
  });
  await nextTick();
  assert.equal(lookUps, 1); // Before it was opened.

  for (let now = 1_060_000; now < 1_090_000; now += 1000) await tickAt(now);
  assert.equal(lookUps, 2);
  for (const answer of waiting.splice(0)) answer();
  await nextTick();
  await tickAt(1_199_999);
  assert.equal(lookUps, 2);
  await tickAt(1_200_000);

  assert.equal(lookUps, 3);
  assert.equal(registry.size, 1);
});

test('a stream whose session has not been refreshed in time ends', async (t) => {
  let session: LiveSession | undefined = { id: 's', userId: '1', expiresAt: 1_060_000 };
  const { tickAt, registry } = await openStream(t, () => Promise.resolve(session));
  await nextTick();

  session = undefined;
  await tickAt(1_059_999);
  const before = registry.size;
  await tickAt(1_060_000);

  assert.equal(before, 1);
  assert.ok(registry.isEmpty);
});

test('an unavailable database closes no stream, and the session is checked again later', async (t) => {
  let lookUps = 0;
  const { tickAt, registry } = await openStream(t, () => {
    lookUps += 1;
    if (lookUps > 1) return Promise.reject(new Error('away'));
    return Promise.resolve({ id: 's', userId: '1', expiresAt: 1_060_000 });
  });
  await tickAt(1_060_000);
  assert.equal(lookUps, 2);

  await tickAt(1_064_999);
  assert.equal(lookUps, 2);
  await tickAt(1_065_000);

  assert.equal(lookUps, 3);
  assert.equal(registry.size, 1);
});

const isStillOpen = async (): Promise<LiveSession> => ({ id: 's', userId: '1', expiresAt: 1e12 });

// What happens between the look-up of a session and the opening of its stream.
const cases = {
  'it is ended in this process': { ends: 's', passMs: 0, lookUps: 2 },
  'another is ended in this process': { ends: 'another', passMs: 0, lookUps: 2 },
  'more than a second passes': { ends: undefined, passMs: 1001, lookUps: 2 },
  nothing: { ends: undefined, passMs: 1000, lookUps: 1 },
};

for (const [what, { ends, passMs, lookUps }] of Object.entries(cases)) {
  test(`a stream looks at its session again when it may have missed its end: ${what}`, async (t) => {
    let isLive = true;
    let count = 0;
    const { prepared, registry, client, time, streams } = await prepareStream(t, () => {
      count += 1;
      return isLive ? isStillOpen() : Promise.resolve(undefined);
    });

    isLive = ends !== 's' && passMs < 1001;
    if (ends !== undefined) await streams.endSessions([ends]);
    time.up += passMs;
    prepared.open(client.connect());
    await nextTick();

    assert.equal(count, lookUps);
    assert.equal(registry.size, isLive ? 1 : 0);
  });
}

test('a wall clock that steps back delays no heartbeat and no stall detection', async (t) => {
  const { registry, client, time, streams } = await openStream(t, isStillOpen);
  await nextTick();
  client.sink?.acceptBytes(1e6);
  streams.tick(); // Tells the count.
  await nextTick();
  client.sink?.acceptBytes(1e6);

  time.now -= 3_600_000;
  time.up += limits.heartbeatMs;
  streams.tick();
  assert.equal(client.sink?.queuedBytes, Buffer.byteLength(':\n\n'));
  for (let second = 0; second < 30; second += 1) {
    assert.equal(registry.size, 1);
    time.up += 1000;
    streams.tick();
  }

  assert.equal(registry.size, 0);
});

test('a wall clock that jumps forward closes no stream as stalled', async (t) => {
  const { registry, time, streams, eventLog } = await openStream(t, isStillOpen);
  await nextTick(); // What it begins with is on its way.
  const events = [{ audiences: ['all'], type: undefined, data: 'x', expiresAt: undefined }];
  await eventLog.append({ events, idempotency: undefined });
  await nextTick();

  for (let second = 0; second < 16; second += 1) {
    time.now += 3_600_000;
    time.up += 1000;
    streams.tick();
  }

  assert.equal(registry.size, 1);
});

test('a stream that ends while its session is looked up is forgotten', async (t) => {
  let lookUps = 0;
  let answer = () => {};
  const { tickAt, registry, streams } = await openStream(t, () => {
    lookUps += 1;
    const found = { id: 's', userId: '1', expiresAt: 1_060_000 };
    if (lookUps === 1) return Promise.resolve(found);
    return new Promise((resolve) => {
      answer = () => resolve(found);
    });
  });
  await tickAt(1_060_000);
  assert.equal(lookUps, 2);

  registry.closeAll('draining');
  answer();
  await nextTick();

  assert.deepEqual(streams.subscribers, []);
});

test('closing waits until the tokens of ended streams are released', async (t) => {
  const { db, tokens, streams, registry, client, request } = await prepareStream(t, isStillOpen);
  await db.execute(
    sql`insert into users (username, username_key, password_hash, first_name, last_name,
        password_changed_at, created_at, updated_at)
      values (${'ada'}, ${'ada'}, 'none', 'A', 'B', 0, 0, 0)`,
  );
  const token = await tokens.find(await tokens.mint({ userId: '1', sessionId: 's' }));
  const { open } = await streams.prepare({ ...request, token });
  open(client.connect());

  registry.closeAll('draining');
  await streams.close();

  const rows = await db.query(sql`select connection_id from stream_tokens`);
  assert.deepEqual(rows, [{ connection_id: null }]);
});
