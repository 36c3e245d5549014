import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SimulatedClient } from '../../test/support/clients/simulated-client.js';
import { MemoryLog } from '../../test/support/databases/memory-log.js';
import { EventLog } from '../event-log/event-log.js';
import { audiencesOf } from '../events/audience.js';
import { silentLog } from '../logging/log.js';
import { drainStreams } from './drain.js';
import { Connection } from './event-stream.js';
import { Registry } from './registry.js';
import { UserCount } from './user-count.js';
import { Outbox } from './write-scheduler.js';

const limits = {
  heartbeatMs: 1e9,
  stallMs: 1e9,
  unsentSoftBytes: 500,
  unsentHardBytes: 2000,
  retryMs: 2000,
};
const clock = () => 1_000_000;
const nextTick = () => new Promise((resolve) => setImmediate(resolve));

/** A registry with so many live connections, each of another user, and what each is told. */
async function crowd(size: number) {
  const store = new MemoryLog('e');
  store.openGates();
  const logLimits = { ageMaxMs: 1e9, eventsMax: 1e9, bytesMax: 1e9 };
  const log = await EventLog.open({ store, log: silentLog, clock, limits: logLimits });
  const registry = new Registry({
    limits: { streamsMax: 1e9, perUserMax: 1e9, perIpMax: 1e9 },
    uptime: clock,
  });
  const userCount = new UserCount(registry);
  const outbox = new Outbox(clock);
  const counts: number[] = [];
  const retries = new Map<string, number>();
  const clients: SimulatedClient[] = [];
  for (let number = 1; number <= size; number += 1) {
    const audiences = audiencesOf(String(number), `s${number}`);
    const client = new SimulatedClient(String(number), (bytes) => {
      for (const [, count] of bytes.toString().matchAll(/event: count\ndata: (\d+)/g)) {
        counts.push(Number(count));
      }
      for (const [, retryMs] of bytes.toString().matchAll(/retry: (\d+)/g)) {
        retries.set(String(number), Number(retryMs));
      }
    });
    const connection = new Connection({
      ...{ id: String(number), log, outbox, limits, uptime: clock, random: () => 0.5 },
      reader: { userId: client.userId, sessionId: 's', audiences, ip: 'ip', tokenHash: undefined },
      start: await log.startFor(audiences, undefined),
      sink: client.connect(),
      onEnd: (ended) => {
        registry.remove(ended);
        userCount.remove(ended);
      },
    });
    registry.add(connection);
    userCount.add(connection);
    connection.open();
    clients.push(client);
  }
  /** The outbox writes to 128 a turn. */
  const written = async () => {
    for (let slice = 0; slice < 2 + size / 128; slice += 1) await nextTick();
  };
  /** What all are told in a tick. */
  const tick = async () => {
    registry.tick();
    userCount.tick();
    await written();
    for (const { sink } of clients) sink?.take(1e9);
    return counts.splice(0);
  };
  await nextTick();
  return { clients, tick, registry, retries };
}

test('the count is told at each tick in which it changed', async () => {
  const { clients, tick } = await crowd(3);
  assert.deepEqual(await tick(), [3, 3, 3]);
  assert.deepEqual(await tick(), []);

  clients[0]?.sink?.cut();
  await nextTick();

  assert.deepEqual(await tick(), [2, 2]);
});

test('with thousands of streams the count is told less often, and in the end to all', async () => {
  const { clients, tick } = await crowd(2000);
  assert.equal((await tick()).length, 2000);

  clients[0]?.sink?.cut();
  await nextTick();

  assert.deepEqual(await tick(), []);
  assert.deepEqual(await tick(), []);
  assert.deepEqual(await tick(), Array(1999).fill(1999));
});

test('a drain sends everybody back at another time, 4 ms for each in all', async () => {
  const { clients, registry, retries } = await crowd(200);
  let drawn = 0;
  const random = () => {
    drawn += 1;
    return (drawn - 1) / 200;
  };

  await drainStreams(registry, { windowMs: 1000, random });
  for (const { sink } of clients) sink?.take(1e9);

  assert.equal(registry.size, 0);
  const expected = Array.from({ length: 200 }, (_, index) => 1000 + 4 * index);
  assert.deepEqual([...retries.values()], expected);
});
