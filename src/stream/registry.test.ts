import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SimulatedClient } from '../../test/support/clients/simulated-client.js';
import { MemoryLogStore } from '../../test/support/databases/memory-log-store.js';
import { resolveStart } from '../../test/support/resolve-start.js';
import { unlimitedRetention } from '../../test/support/unlimited-retention.js';
import { until } from '../../test/support/until.js';
import { EventLog } from '../event-log/event-log.js';
import { getAudiences } from '../events/audience.js';
import { silentLogger } from '../logging/logger.js';
import { EventStream } from './event-stream.js';
import { closeGradually } from './gradual-close.js';
import { Registry } from './registry.js';
import { UserCount } from './user-count.js';
import { WriteScheduler } from './write-scheduler.js';

const limits = {
  heartbeatMs: 1e9,
  stallMs: 1e9,
  unsentSoftBytes: 500,
  unsentHardBytes: 2000,
  retryMs: 2000,
};
const wallClock = () => 1_000_000;
const nextTurn = () => new Promise((resolve) => setImmediate(resolve));

/**
 * Opens `size` live streams of different users, and records what they receive: counts, and by user the
 * latest `retry:` and the code of `stream.close`.
 */
async function openStreams(size: number, { perUserMax = 1e9 } = {}) {
  const store = new MemoryLogStore('e');
  store.release();
  const eventLog = await EventLog.open({
    store,
    log: silentLogger,
    wallClock,
    limits: unlimitedRetention,
  });
  const registry = new Registry({
    limits: { streamsMax: 1e9, perUserMax, perIpMax: 1e9 },
    monotonicClock: wallClock,
    random: () => 0.5,
  });
  const userCount = new UserCount(registry);
  const scheduler = new WriteScheduler(wallClock);
  const counts: number[] = [];
  const retryMsByUser = new Map<string, number>();
  const closeCodes = new Map<string, string>();
  const clients: SimulatedClient[] = [];
  const open = async (userId: string, tokenHash?: string) => {
    const audiences = getAudiences(userId, `s${userId}`);
    const client = new SimulatedClient(userId, (bytes) => {
      for (const [, count] of bytes.toString().matchAll(/event: count\ndata: (\d+)/g)) {
        counts.push(Number(count));
      }
      for (const [, retryMs] of bytes.toString().matchAll(/retry: (\d+)/g)) {
        retryMsByUser.set(userId, Number(retryMs));
      }
      for (const [, code = ''] of bytes.toString().matchAll(/"code":"(\w+)"/g)) {
        closeCodes.set(userId, code);
      }
    });
    const stream = new EventStream({
      ...{
        id: `${userId} ${clients.length}`,
        eventLog,
        scheduler,
        limits,
        monotonicClock: wallClock,
        random: () => 0.5,
      },
      subscriber: { userId, sessionId: 's', audiences, ipKey: 'ip', tokenHash },
      client: { address: '192.0.2.1', userAgent: undefined },
      openedAt: 1e6,
      start: await resolveStart(eventLog, audiences),
      headAtOpen: eventLog.head,
      claim: undefined,
      publicId: 'public',
      endsAt: 1e12,
      hasHeartbeatEvents: false,
      sink: client.connect(),
      onEnd: (ended) => {
        registry.remove(ended);
        userCount.remove(ended);
      },
    });
    registry.add(stream, registry.pendingOpens.add());
    userCount.add(stream);
    stream.open();
    clients.push(client);
  };
  for (let number = 1; number <= size; number += 1) await open(String(number));
  /** Waits until all streams are flushed: 128 per event-loop iteration. */
  const waitForWrites = async () => {
    for (let slice = 0; slice < 2 + size / 128; slice += 1) await nextTurn();
  };
  /** Runs one tick, and returns the counts that the streams received since the previous call. */
  const tick = async () => {
    registry.tick();
    userCount.tick();
    await waitForWrites();
    for (const { sink } of clients) sink?.acceptBytes(1e9);
    return counts.splice(0);
  };
  await nextTurn();
  return { clients, tick, registry, retryMsByUser, closeCodes, open };
}

test('a tick sends the user count if it has changed since the last tick', async () => {
  const { clients, tick } = await openStreams(3);
  assert.deepEqual(await tick(), [3, 3, 3]);
  assert.deepEqual(await tick(), []);

  clients[0]?.sink?.destroy();
  await nextTurn();

  assert.deepEqual(await tick(), [2, 2]);
});

test('with thousands of streams the user count is sent less often, but to all streams', async () => {
  const { clients, tick } = await openStreams(2000);
  assert.equal((await tick()).length, 2000);

  clients[0]?.sink?.destroy();
  await nextTurn();

  assert.deepEqual(await tick(), []);
  assert.deepEqual(await tick(), []);
  assert.deepEqual(await tick(), Array(1999).fill(1999));
});

test('a stream with too much unsent data gets the user count at a later tick', async () => {
  const { clients, tick, registry } = await openStreams(3);
  await tick();
  clients[2]?.sink?.destroy();
  const bytes = Buffer.from(`data: ${'x'.repeat(limits.unsentSoftBytes)}\n\n`);
  registry.deliverVolatile({ audiences: ['u:1'] }, { seq: 0, bytes }, 0);
  await nextTurn();

  assert.deepEqual(await tick(), [2]);
  assert.deepEqual(await tick(), [2]);
  assert.deepEqual(await tick(), []);
});

test('when unapplied entries were trimmed, streams are closed in slices and receive nothing else meanwhile', async () => {
  const { clients, tick, registry, closeCodes } = await openStreams(250);
  await tick();
  const frame = { seq: 1, bytes: Buffer.from('data: too late\n\n') };
  for (const { sink } of clients) assert.equal(sink?.queuedBytes, 0);

  registry.handleGap();
  assert.equal(registry.size, 150);
  registry.deliver({ audiences: ['all'] }, frame);
  registry.deliverVolatile({ audiences: ['all'] }, { ...frame, seq: 0 }, 0);
  assert.deepEqual(await tick(), []); // No count, and no heartbeat.
  assert.ok([...registry.streams].every((stream) => stream.flush() === 0));
  await until(() => registry.size === 0);
  for (const { sink } of clients) sink?.acceptBytes(1e9);

  assert.deepEqual([...closeCodes.values()], Array(250).fill('behind'));
});

test('while a stream of a token is open, up to three others of the token are exempt from the limits', async () => {
  const { registry, open } = await openStreams(0, { perUserMax: 1 });
  const other = { userId: '1', ipKey: 'ip', tokenHash: 'other' };
  const own = { userId: '1', ipKey: 'ip', tokenHash: 'own' };
  await open('1', 'own');

  const refusals = [registry.checkLimits(other), registry.checkLimits(own)];
  await open('1', 'own');
  await open('1', 'own');
  refusals.push(registry.checkLimits(own));
  await open('1', 'own');
  refusals.push(registry.checkLimits(own));

  assert.deepEqual(refusals, ['user', undefined, undefined, 'user']);
});

test('gradually closed streams are closed in larger slices if the time is short', async () => {
  const { registry } = await openStreams(1000);

  const closing = closeGradually([...registry.streams], {
    ...{ reason: 'draining', windowMs: 200, random: () => 0 },
  });
  assert.equal(registry.size, 500);
  await closing;

  assert.equal(registry.size, 0);
});

test('the random retry of gradually closed streams has a range of 4 ms per stream', async () => {
  const { clients, registry, retryMsByUser } = await openStreams(200);
  let calls = 0;
  const random = () => {
    calls += 1;
    return (calls - 1) / 200;
  };

  await closeGradually([...registry.streams], { reason: 'draining', windowMs: 1000, random });
  for (const { sink } of clients) sink?.acceptBytes(1e9);

  assert.equal(registry.size, 0);
  const expected = Array.from({ length: 200 }, (_, index) => 1000 + 4 * index);
  assert.deepEqual([...retryMsByUser.values()], expected);
});
