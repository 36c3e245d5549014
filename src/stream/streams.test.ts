import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { SimulatedClient } from '../../test/support/clients/simulated-client.js';
import { databaseFor } from '../../test/support/databases/test-database.js';
import { unlimitedRetention } from '../../test/support/unlimited-retention.js';
import { until } from '../../test/support/until.js';
import { type Database, sql } from '../db/database.js';
import { Failure } from '../errors.js';
import { EventLog } from '../event-log/event-log.js';
import type { LogStore } from '../event-log/log-store.js';
import { controlEntryAppender, trimmedSeqSql } from '../event-log/open.js';
import { SqlLogStore } from '../event-log/sql/sql-log-store.js';
import { silentLogger } from '../logging/logger.js';
import { WarningAggregator } from '../logging/warning-aggregator.js';
import { Metrics } from '../metrics.js';
import { Registry } from './registry.js';
import type { LiveSession } from './session-checks.js';
import { Streams } from './streams.js';
import { StreamTokens } from './tokens/stream-token.js';
import { TokenHolders } from './tokens/token-holders.js';
import { TopicLookup } from './topics/topic-lookup.js';
import { UserCount } from './user-count.js';

const limits = {
  ...{ streamsMax: 10, perUserMax: 10, perIpMax: 10 },
  ...{ heartbeatMs: 15_000, stallMs: 30_000, retryMs: 2000 },
  ...{ unsentSoftBytes: 500, unsentHardBytes: 2000 },
};

const nextTurn = () => new Promise((resolve) => setImmediate(resolve));

/** Wraps a store so that `afterState` runs after the state was read and before it is returned. */
function withHooks(store: LogStore, hooks: { afterState: () => Promise<void> }): LogStore {
  const readState = async () => {
    const state = await store.readState();
    await hooks.afterState();
    return state;
  };
  return new Proxy(store, {
    get(target, name) {
      const value: unknown = name === 'readState' ? readState : Reflect.get(target, name);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

/** Prepares a stream of the session that `findLiveSession` returns. */
async function prepareStream(
  t: TestContext,
  findLiveSession: () => Promise<LiveSession | undefined>,
) {
  const db = await databaseFor(t);
  const time = { now: 1_000_000, up: 0 };
  const wallClock = () => time.now;
  const monotonicClock = () => time.up;
  const store = await SqlLogStore.open(db, { wallClock, newEpoch: 'e' });
  const hooks = { afterState: async () => {} };
  const eventLog = await EventLog.open({
    ...{ store: withHooks(store, hooks), log: silentLogger, wallClock, limits: unlimitedRetention },
  });
  const registry = new Registry({ limits, monotonicClock, random: () => 0 });
  const tokenOptions = { lifeMs: 1000, mode: 'resume', streamsPerUserMax: 10 } as const;
  const appendControlEntries = controlEntryAppender(db, wallClock);
  const tokens = new StreamTokens({ db, wallClock, appendControlEntries, ...tokenOptions });
  const holders = new TokenHolders({
    ...{ db, wallClock, appendControlEntries, resumeWindowMs: 1e6 },
  });
  const userCount = new UserCount(registry);
  const parts = {
    registry,
    userCount,
    eventLog,
    tokens,
    holders,
    topicLookup: new TopicLookup(db, trimmedSeqSql),
    findLiveSession,
    limits,
    wallClock,
    monotonicClock,
  };
  const streams = new Streams({
    ...{ ...parts, metrics: new Metrics(), log: silentLogger, random: () => 0 },
    warnings: new WarningAggregator({ log: silentLogger, monotonicClock }),
  });
  const client = new SimulatedClient('1');
  eventLog.subscribe(registry);
  const findSession = async () => {
    const session = await findLiveSession();
    if (session !== undefined) return session;
    throw new Failure('invalid_token', 'The session has ended');
  };
  const prepare = (tokenText?: string) =>
    streams.withSnapshot(tokenText === undefined ? { findSession } : { tokenText }, (snapshot) =>
      streams.prepare({
        ...{ snapshot, lastEventId: undefined, ipKey: 'ip', hasHeartbeatEvents: false },
        client: { address: '192.0.2.1', userAgent: undefined },
      }),
    );
  const prepared = await prepare();
  /** Sets the wall clock and ticks. The client accepts all bytes. */
  const tickAt = async (now: number) => {
    client.sink?.acceptBytes(1e6);
    time.now = now;
    streams.tick();
    client.sink?.acceptBytes(1e6);
    await nextTurn();
  };
  /** Mints a token of a new user. */
  const mint = async () => {
    await db.execute(
      sql`insert into users (username, username_key, password_hash, first_name, last_name,
          password_changed_at, created_at, updated_at)
        values (${'ada'}, ${'ada'}, 'none', 'A', 'B', 0, 0, 0)`,
    );
    return tokens.mint({ userId: '1', sessionId: 's', beginning: 'e-0', mintedSeq: 0 });
  };
  const log = { eventLog, hooks };
  return { prepared, prepare, tickAt, registry, client, time, streams, ...log, db, mint };
}

/** Prepares and opens a stream. */
async function openStream(t: TestContext, findLiveSession: () => Promise<LiveSession | undefined>) {
  const { prepared, ...rest } = await prepareStream(t, findLiveSession);
  prepared.open(rest.client.connect());
  return rest;
}

test('an expired session is looked up only once while the lookup takes many ticks', async (t) => {
  let lookups = 0;
  const waiting: (() => void)[] = [];
  const { tickAt, registry } = await openStream(t, () => {
    lookups += 1;
    const found = { id: 's', userId: '1', expiresAt: lookups === 1 ? 1_060_000 : 1_200_000 };
    if (lookups === 1) return Promise.resolve(found);
    return new Promise((resolve) => waiting.push(() => resolve(found)));
  });
  await nextTurn();
  assert.equal(lookups, 1); // The lookup of the open.

  for (let now = 1_060_000; now < 1_090_000; now += 1000) await tickAt(now);
  assert.equal(lookups, 2);
  for (const finish of waiting.splice(0)) finish();
  await nextTurn();
  await tickAt(1_199_999);
  assert.equal(lookups, 2);
  await tickAt(1_200_000);

  assert.equal(lookups, 3);
  assert.equal(registry.size, 1);
});

test('a stream is closed when its session expires without a refresh', async (t) => {
  let session: LiveSession | undefined = { id: 's', userId: '1', expiresAt: 1_060_000 };
  const { tickAt, registry } = await openStream(t, () => Promise.resolve(session));
  await nextTurn();

  session = undefined;
  await tickAt(1_059_999);
  const sizeBefore = registry.size;
  await tickAt(1_060_000);

  assert.equal(sizeBefore, 1);
  assert.ok(registry.isEmpty);
});

test('a stream stays open while its session cannot be looked up, and the lookup is retried after 5 s', async (t) => {
  let lookups = 0;
  const { tickAt, registry } = await openStream(t, () => {
    lookups += 1;
    if (lookups > 1) return Promise.reject(new Error('unavailable'));
    return Promise.resolve({ id: 's', userId: '1', expiresAt: 1_060_000 });
  });
  await tickAt(1_060_000);
  assert.equal(lookups, 2);

  await tickAt(1_064_999);
  assert.equal(lookups, 2);
  await tickAt(1_065_000);

  assert.equal(lookups, 3);
  assert.equal(registry.size, 1);
});

const returnLiveSession = async (): Promise<LiveSession> => ({
  id: 's',
  userId: '1',
  expiresAt: 1e12,
});

const ended = (sessionId: string) => ({ kind: 'sessions_ended', sessionIds: [sessionId] }) as const;

// What happens while a stream is being opened, and the first event that its client then receives.
const changesDuringOpen = {
  'its session ends': [
    (registry: Registry) => registry.applyControl(ended('s'), 1),
    'stream.close',
  ],
  'another session ends': [
    (registry: Registry) => registry.applyControl(ended('other'), 1),
    'stream.open',
  ],
  'control entries are trimmed before they are applied': [
    (registry: Registry) => registry.handleGap(),
    'stream.close',
  ],
} as const;

for (const [change, [apply, firstEvent]] of Object.entries(changesDuringOpen)) {
  test(`when ${change} while a stream is being opened, the stream starts with ${firstEvent}`, async (t) => {
    let wire = '';
    const { prepared, registry } = await prepareStream(t, returnLiveSession);
    const client = new SimulatedClient('1', (bytes) => {
      wire += bytes.toString();
    });

    apply(registry);
    prepared.open(client.connect());
    for (let turn = 0; turn < 3; turn += 1) {
      await nextTurn();
      client.sink?.acceptBytes(1e6);
    }

    assert.deepEqual(/event: (.*)/.exec(wire)?.[1], firstEvent);
    assert.equal(registry.size, firstEvent === 'stream.open' ? 1 : 0);
    assert.equal(registry.pendingOpens.size, 0);
  });
}

test('control entries that are applied while an open reads the head are applied to its stream', async (t) => {
  const { prepare, registry, client, eventLog, hooks } = await prepareStream(t, returnLiveSession);
  hooks.afterState = async () => registry.applyControl(ended('s'), eventLog.head + 1);

  (await prepare()).open(client.connect());

  assert.equal(registry.size, 0);
});

test('a control entry that was stored before a stream was opened does not close the stream', async (t) => {
  const { prepare, registry, client, eventLog, db } = await prepareStream(t, returnLiveSession);
  const appendControlEntries = controlEntryAppender(db, () => 0);
  await db.transaction((tx) => appendControlEntries(tx, [ended('s')]));
  assert.equal(eventLog.head, 0); // This process has not applied the entry yet.

  (await prepare()).open(client.connect());
  await eventLog.catchUp();

  assert.equal(eventLog.head, 1);
  assert.equal(registry.size, 1);
});

test('a stream is not opened when its session ends during the session lookup of the open', async (t) => {
  const finishLookups: (() => void)[] = [];
  let isFirst = true;
  const { registry, client, prepare } = await prepareStream(t, async () => {
    if (!isFirst) await new Promise<void>((resolve) => finishLookups.push(resolve));
    isFirst = false;
    return returnLiveSession(); // The lookup read the session before it ended.
  });

  const opening = prepare();
  await until(() => finishLookups.length > 0);
  registry.applyControl(ended('s'), 1);
  for (const finish of finishLookups) finish();
  (await opening).open(client.connect());

  assert.equal(registry.size, 0);
});

/** What a removal of a topic, or trimming, leaves at this number. */
const disturbances = {
  'a topic is removed': (db: Database, seq: number) =>
    db.transaction(async (tx) => {
      await tx.execute(sql`delete from topic_losses where user_id = '1'`);
      await tx.execute(sql`insert into topic_losses (user_id, seq) values ('1', ${seq})`);
    }),
  'entries are trimmed': (db: Database, seq: number) =>
    db.execute(sql`update log_head set trimmed_seq = ${seq} where id = 1`),
} as const;

for (const [disturbance, disturb] of Object.entries(disturbances)) {
  test(`when ${disturbance} after an open has read the head, it reads everything again`, async (t) => {
    const { prepare, registry, client, hooks, db } = await prepareStream(t, returnLiveSession);
    const appendControlEntries = controlEntryAppender(db, () => 0);
    let reads = 0;
    hooks.afterState = async () => {
      reads += 1;
      if (reads > 2) return;
      const seq = await db.transaction((tx) => appendControlEntries(tx, [ended('other')]));
      await disturb(db, seq);
    };

    (await prepare()).open(client.connect());
    await nextTurn();
    client.sink?.acceptBytes(1e6);

    assert.equal(client.lastEventId, 'e-2');
    assert.equal(registry.pendingOpens.size, 1); // That of `prepareStream`.
  });

  test(`when ${disturbance} during each of three reads, the open is refused temporarily`, async (t) => {
    const { prepare, registry, hooks, db } = await prepareStream(t, returnLiveSession);
    const appendControlEntries = controlEntryAppender(db, () => 0);
    hooks.afterState = async () => {
      const seq = await db.transaction((tx) => appendControlEntries(tx, [ended('other')]));
      await disturb(db, seq);
    };

    await assert.rejects(prepare(), { name: 'service_unavailable', status: 503 });

    assert.equal(registry.pendingOpens.size, 1); // That of `prepareStream`.
  });
}

test('a stream whose token begins before a removal of a topic of the user is told so, and starts at the head', async (t) => {
  const { prepare, db, mint } = await prepareStream(t, returnLiveSession);
  const token = await mint(); // Begins at 0.
  const appendControlEntries = controlEntryAppender(db, () => 0);
  const kinds = [ended('other'), ended('another')];
  await db.transaction((tx) => appendControlEntries(tx, kinds));
  const openWithLoss = async (seq: number) => {
    await disturbances['a topic is removed'](db, seq);
    let wire = '';
    const client = new SimulatedClient('1', (bytes) => {
      wire += bytes.toString();
    });
    (await prepare(token)).open(client.connect());
    await nextTurn();
    client.sink?.acceptBytes(1e6);
    return /"reason":"(\w+)","id":"([\w-]+)"/.exec(wire)?.slice(1);
  };

  assert.deepEqual(await openWithLoss(0), ['fresh', 'e-0']);
  assert.deepEqual(await openWithLoss(1), ['too_old', 'e-2']);
});

test('an open that has failed or was cancelled is no longer pending', async (t) => {
  let isLive = true;
  const { prepared, prepare, registry } = await prepareStream(t, () =>
    isLive ? returnLiveSession() : Promise.resolve(undefined),
  );
  assert.equal(registry.pendingOpens.size, 1);

  isLive = false;
  await assert.rejects(prepare(), { name: 'invalid_token' });
  prepared.cancel();
  prepared.cancel();

  assert.equal(registry.pendingOpens.size, 0);
});

test('a wall clock that is set back delays neither heartbeats nor stall detection', async (t) => {
  const { registry, client, time, streams } = await openStream(t, returnLiveSession);
  await nextTurn();
  client.sink?.acceptBytes(1e6);
  streams.tick(); // Sends the count.
  await nextTurn();
  client.sink?.acceptBytes(1e6);

  time.now -= 3_600_000;
  time.up += limits.heartbeatMs;
  streams.tick();
  assert.equal(client.sink?.queuedBytes, Buffer.byteLength(':\n'));
  for (let second = 0; second < 30; second += 1) {
    assert.equal(registry.size, 1);
    time.up += 1000;
    streams.tick();
  }

  assert.equal(registry.size, 0);
});

test('a wall clock that jumps forward closes no stream as stalled', async (t) => {
  const { registry, time, streams, eventLog } = await openStream(t, returnLiveSession);
  await nextTurn(); // The opening events are unsent.
  const events = [{ audiences: ['all'], type: undefined, data: 'x', expiresAt: undefined }];
  await eventLog.append({ events, idempotency: undefined });
  await nextTurn();

  for (let second = 0; second < 16; second += 1) {
    time.now += 3_600_000;
    time.up += 1000;
    streams.tick();
  }

  assert.equal(registry.size, 1);
});

test('a stream that ends while its session is looked up is not listed as a subscriber afterwards', async (t) => {
  let lookups = 0;
  let finishLookup = () => {};
  const { tickAt, registry, streams } = await openStream(t, () => {
    lookups += 1;
    const found = { id: 's', userId: '1', expiresAt: 1_060_000 };
    if (lookups === 1) return Promise.resolve(found);
    return new Promise((resolve) => {
      finishLookup = () => resolve(found);
    });
  });
  await tickAt(1_060_000);
  assert.equal(lookups, 2);

  registry.closeAll('draining');
  finishLookup();
  await nextTurn();

  assert.deepEqual(streams.subscribers, []);
});

test('a client that is refused during shutdown can open its token after its `retry:`, even in another process', async (t) => {
  const opened = await prepareStream(t, returnLiveSession);
  const { db, mint, streams, registry, prepare, time } = opened;
  const token = await mint();
  const prepared = await prepare(token);
  let wire = '';
  const client = new SimulatedClient('1', (bytes) => {
    wire += bytes.toString();
  });

  registry.startDraining();
  prepared.open(client.connect());
  client.sink?.acceptBytes(1e6);
  await streams.close();

  const retryMs = Number(/retry: (\d+)/.exec(wire)?.[1]);
  assert.equal(retryMs, limits.retryMs);
  time.now += retryMs + 29_999;
  (await prepare(token)).cancel();
  const [row] = await db.query<{ expires_at: number }>(sql`select expires_at from stream_tokens`);
  assert.equal(row?.expires_at, time.now + 1);
});

test('close resolves only when the tokens of ended streams are released', async (t) => {
  const { db, mint, streams, registry, client, prepare } = await prepareStream(
    t,
    returnLiveSession,
  );
  const token = await mint();
  (await prepare(token)).open(client.connect());
  await nextTurn(); // The claim is in progress.

  registry.closeAll('draining');
  await streams.close();

  const rows = await db.query(sql`select connection_id, version from stream_tokens`);
  assert.deepEqual(rows, [{ connection_id: null, version: 1 }]);
});
