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
const nextTick = () => new Promise((resolve) => setImmediate(resolve));

/**
 * Opens `size` live streams of different users, and records the counts, `retry:` and codes that they
 * receive.
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
  const retries = new Map<string, number>();
  const closings = new Map<string, string>();
  const clients: SimulatedClient[] = [];
  const open = async (userId: string, tokenHash?: string) => {
    const audiences = getAudiences(userId, `s${userId}`);
    const client = new SimulatedClient(userId, (bytes) => {
      for (const [, count] of bytes.toString().matchAll(/event: count\ndata: (\d+)/g)) {
        counts.push(Number(count));
      }
      for (const [, retryMs] of bytes.toString().matchAll(/retry: (\d+)/g)) {
        retries.set(userId, Number(retryMs));
      }
      for (const [, code = ''] of bytes.toString().matchAll(/"code":"(\w+)"/g)) {
        closings.set(userId, code);
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
      subscriber: { userId, sessionId: 's', audiences, ip: 'ip', tokenHash },
      start: await resolveStart(eventLog, audiences),
      asOf: eventLog.head,
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
  /** The scheduler flushes 128 streams per event-loop iteration. */
  const waitForWrites = async () => {
    for (let slice = 0; slice < 2 + size / 128; slice += 1) await nextTick();
  };
  /** Returns the counts that all streams receive in one tick. */
  const tick = async () => {
    registry.tick();
    userCount.tick();
    await waitForWrites();
    for (const { sink } of clients) sink?.acceptBytes(1e9);
    return counts.splice(0);
  };
  await nextTick();
  return { clients, tick, registry, retries, closings, open };
}

test('a tick sends the count if it has changed since the last tick', async () => {
  const { clients, tick } = await openStreams(3);
  assert.deepEqual(await tick(), [3, 3, 3]);
  assert.deepEqual(await tick(), []);

  clients[0]?.sink?.destroy();
  await nextTick();

  assert.deepEqual(await tick(), [2, 2]);
});

test('with thousands of streams the count is sent less often, but to all streams', async () => {
  const { clients, tick } = await openStreams(2000);
  assert.equal((await tick()).length, 2000);

  clients[0]?.sink?.destroy();
  await nextTick();

  assert.deepEqual(await tick(), []);
  assert.deepEqual(await tick(), []);
  assert.deepEqual(await tick(), Array(1999).fill(1999));
});

test('when entries were trimmed, streams close in slices, and receive nothing meanwhile', async () => {
  const { clients, tick, registry, closings } = await openStreams(250);
  await tick();
  const frame = { seq: 1, bytes: Buffer.from('data: too late\n\n') };
  for (const { sink } of clients) assert.equal(sink?.queuedBytes, 0);

  registry.gap();
  assert.equal(registry.size, 150);
  registry.deliver({ audiences: ['all'] }, frame);
  registry.deliverVolatile({ audiences: ['all'] }, { ...frame, seq: 0 });
  assert.deepEqual(await tick(), []); // No count, and no heartbeat.
  assert.ok([...registry.streams].every((stream) => stream.flush() === 0));
  await until(() => registry.size === 0);
  for (const { sink } of clients) sink?.acceptBytes(1e9);

  assert.deepEqual([...closings.values()], Array(250).fill('behind'));
});

test('a stream of a token whose stream is open is exempt from the limits, up to three at once', async () => {
  const { registry, open } = await openStreams(0, { perUserMax: 1 });
  const other = { userId: '1', ip: 'ip', tokenHash: 'other' };
  const own = { userId: '1', ip: 'ip', tokenHash: 'own' };
  await open('1', 'own');

  const refusals = [registry.checkLimits(other), registry.checkLimits(own)];
  await open('1', 'own');
  await open('1', 'own');
  refusals.push(registry.checkLimits(own));
  await open('1', 'own');
  refusals.push(registry.checkLimits(own));

  assert.deepEqual(refusals, ['user', undefined, undefined, 'user']);
});

test('a drain spreads reconnects over 4 ms per stream', async () => {
  const { clients, registry, retries } = await openStreams(200);
  let calls = 0;
  const random = () => {
    calls += 1;
    return (calls - 1) / 200;
  };

  await closeGradually([...registry.streams], { reason: 'draining', windowMs: 1000, random });
  for (const { sink } of clients) sink?.acceptBytes(1e9);

  assert.equal(registry.size, 0);
  const expected = Array.from({ length: 200 }, (_, index) => 1000 + 4 * index);
  assert.deepEqual([...retries.values()], expected);
});
