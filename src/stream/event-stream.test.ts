import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SimulatedClient } from '../../test/support/clients/simulated-client.js';
import { MemoryLogStore } from '../../test/support/databases/memory-log-store.js';
import { resolveStart } from '../../test/support/resolve-start.js';
import { unlimitedRetention } from '../../test/support/unlimited-retention.js';
import { until } from '../../test/support/until.js';
import { Failure } from '../errors.js';
import { EventLog } from '../event-log/event-log.js';
import { getAudiences } from '../events/audience.js';
import { silentLogger } from '../logging/logger.js';
import { EventStream, type StreamEnd } from './event-stream.js';
import { Registry } from './registry.js';
import { UserCount } from './user-count.js';
import { WriteScheduler } from './write-scheduler.js';

const limits = {
  heartbeatMs: 15_000,
  stallMs: 30_000,
  unsentSoftBytes: 500,
  unsentHardBytes: 2000,
  retryMs: 2000,
};
const nextTurn = () => new Promise((resolve) => setImmediate(resolve));

/** Creates an event log, a registry and a client of user 1 that accepts bytes only in `acceptBytes`. */
async function openHarness(history: readonly string[] = []) {
  const store = new MemoryLogStore('e');
  for (const data of history) store.appendExternally(['u:1'], data);
  store.release();
  const time = { now: 1_000_000 };
  const wallClock = () => time.now;
  const eventLog = await EventLog.open({
    store,
    log: silentLogger,
    wallClock,
    limits: unlimitedRetention,
  });
  const registry = new Registry({
    limits: { streamsMax: 10, perUserMax: 10, perIpMax: 10 },
    monotonicClock: wallClock,
    random: () => 0.5,
  });
  eventLog.subscribe(registry);
  const userCount = new UserCount(registry);
  /** Does what `Streams.tick` does. */
  const tick = () => {
    registry.tick();
    userCount.tick();
  };
  const audiences = getAudiences('1', 's1');
  const ends: StreamEnd[] = [];
  let wire = '';
  const client = new SimulatedClient('1', (bytes) => {
    wire += bytes.toString();
  });
  const scheduler = new WriteScheduler(wallClock);
  const open = async (lastEventId?: string) => {
    const start = await resolveStart(eventLog, audiences, lastEventId);
    const stream = new EventStream({
      id: 'c1',
      subscriber: { userId: '1', sessionId: 's1', audiences, ipKey: 'ip', tokenHash: undefined },
      client: { address: '192.0.2.1', userAgent: undefined },
      openedAt: 1e6,
      start,
      headAtOpen: eventLog.head,
      claim: undefined,
      publicId: 'public',
      endsAt: 1e12,
      hasHeartbeatEvents: false,
      sink: client.connect(),
      eventLog,
      scheduler,
      limits,
      monotonicClock: wallClock,
      random: () => 0.5,
      onEnd: (ended, end) => {
        ends.push(end);
        registry.remove(ended);
        userCount.remove(ended);
      },
    });
    registry.add(stream, registry.pendingOpens.add());
    userCount.add(stream);
    stream.open();
    return stream;
  };
  const publish = (data: string, userId = '1') =>
    eventLog.append({
      events: [{ audiences: [`u:${userId}`], type: undefined, data, expiresAt: undefined }],
      idempotency: undefined,
    });
  /** Lets the client accept up to `bytesMax` queued bytes three times, including bytes written in between. */
  const acceptBytes = async (bytesMax = 1_000_000) => {
    for (let turn = 0; turn < 3; turn += 1) {
      await nextTurn();
      client.sink?.acceptBytes(bytesMax);
    }
    await nextTurn();
  };
  const received = () => client.received.map(({ data }) => data);
  return {
    time,
    store,
    eventLog,
    registry,
    userCount,
    tick,
    client,
    ends,
    open,
    publish,
    acceptBytes,
    received,
    wire: () => wire,
  };
}

test('a stream begins with a retry and stream.open, before anything else', async () => {
  const { open, publish, acceptBytes, wire } = await openHarness();
  await open();
  await publish('first');

  await acceptBytes();

  const opening = {
    ...{ v: 1, resumed: false, reason: 'fresh', id: 'e-0', stream: 'public', user: '1' },
    ...{ endsAt: 1e12, heartbeat: 15_000, topics: [], memberships: 0 },
  };
  assert.equal(
    wire(),
    `retry: 4000\nevent: stream.open\ndata: ${JSON.stringify(opening)}\nid: e-0\n\ndata: first\nid: e-1\n\n`,
  );
});

test('a resumed stream first receives the missed events, then new ones', async () => {
  const { open, publish, acceptBytes, received, wire } = await openHarness();
  for (const data of ['seen', 'missed 1', 'missed 2']) await publish(data);
  await publish('for another user', '2');
  await open('e-1');
  await publish('new');

  await acceptBytes();

  assert.deepEqual(received(), ['missed 1', 'missed 2', 'new']);
  assert.match(wire(), /"resumed":true,"reason":"resumed","id":"e-1"/);
});

test('events of one event-loop iteration are sent in one write', async () => {
  const { open, publish, acceptBytes, client } = await openHarness();
  await open();
  await acceptBytes();
  const writesBefore = client.writes;
  await Promise.all(['a', 'b', 'c'].map((data) => publish(data)));

  await acceptBytes();

  assert.equal(client.writes - writesBefore, 1);
});

test('the stream of a slow client reads the event log, misses nothing, and becomes live again', async () => {
  const { open, publish, acceptBytes, received, client } = await openHarness();
  const stream = await open();
  await acceptBytes();
  const data = Array.from({ length: 40 }, (_, index) => `event ${index} ${'x'.repeat(50)}`);
  for (const item of data) {
    await publish(item);
    await nextTurn();
  }

  assert.equal(stream.isLive, false);
  assert.ok((client.sink?.queuedBytes ?? 0) < limits.unsentSoftBytes + 200);
  await until(async () => {
    await acceptBytes(100);
    return received().length >= data.length;
  });

  assert.deepEqual(received(), data);
  assert.equal(stream.isLive, true);
});

test('a client receives no volatile events while its stream is replaying', async () => {
  const { open, publish, acceptBytes, registry, wire } = await openHarness();
  await open();
  await acceptBytes();
  await publish('x'.repeat(600));
  await nextTurn();
  registry.deliverVolatile(
    { audiences: ['all'] },
    { seq: 0, bytes: Buffer.from('data: volatile\n\n') },
    1,
  );

  await acceptBytes();
  registry.deliverVolatile(
    { audiences: ['all'] },
    { seq: 0, bytes: Buffer.from('data: later\n\n') },
    1,
  );
  await acceptBytes();

  assert.doesNotMatch(wire(), /volatile/);
  assert.match(wire(), /data: later/);
});

test('an event that a client received from another process is not sent again when this process applies it', async () => {
  const { open, acceptBytes, received, store, eventLog } = await openHarness(['seen']);
  store.appendExternally(['u:1'], 'of another process');
  store.appendExternally(['u:1'], 'after it');
  await open('e-2');
  await acceptBytes();

  await eventLog.catchUp();
  await acceptBytes();

  assert.deepEqual(received(), ['after it']);
});

test('stream.open and the missed events are sent in one write', async () => {
  const { client, open, acceptBytes, received } = await openHarness([
    'seen',
    'missed',
    'missed, too',
  ]);

  await open('e-1');
  await acceptBytes();

  assert.deepEqual(received(), ['missed', 'missed, too']);
  assert.equal(client.writes, 1);
});

test('an event that is appended while a stream reads a page is not skipped', async () => {
  const { open, publish, acceptBytes, received, store, eventLog } = await openHarness([
    'seen',
    'missed',
  ]);
  const read = store.read.bind(store);
  store.read = async (...range) => {
    const page = await read(...range);
    store.read = read;
    await publish('just now');
    return page;
  };

  await open('e-1');
  await acceptBytes();

  assert.equal(eventLog.head, 3);
  assert.deepEqual(received(), ['missed', 'just now']);
});

test('replay stops when the sink is closed, even before the sink calls onClose', async () => {
  const history = Array.from({ length: 20 }, (_, index) => `${index} ${'x'.repeat(400)}`);
  const { open, store, acceptBytes, client } = await openHarness(history);
  let reads = 0;
  const read = store.read.bind(store);
  store.read = (...range) => {
    reads += 1;
    return read(...range);
  };
  await open('e-1');
  await until(() => (client.sink?.queuedBytes ?? 0) > 400);
  const readsBefore = reads;

  Object.assign(client.sink ?? {}, { closed: true });
  await acceptBytes();

  assert.equal(reads, readsBefore);
});

test('an idle stream receives a heartbeat after 12 to 15 seconds', async () => {
  const { time, open, publish, acceptBytes, tick, wire } = await openHarness();
  await open();
  await acceptBytes();
  tick(); // Sends the count, so that the stream is not idle.
  await acceptBytes();
  const comments = () => wire().split('\n:\n').length - 1;
  const advance = async (ms: number) => {
    time.now += ms;
    tick();
    await acceptBytes();
  };

  await advance(12_000);
  assert.equal(comments(), 0);
  await advance(1000); // With `random` at 0.5, a heartbeat is due after 13.5 s.
  assert.equal(comments(), 1);
  await advance(10_000);
  await publish('not silent');
  await acceptBytes();
  await advance(10_000);
  assert.equal(comments(), 1);
  await advance(3000);
  assert.equal(comments(), 2);
});

test('a heartbeat is at most half a second early or late', async () => {
  const { time, open, publish, acceptBytes, wire, ...streams } = await openHarness();
  await open();
  await acceptBytes();
  let lastTickAt = time.now;
  const tick = async () => {
    lastTickAt += 1003; // A timer of 1 s that is 3 ms late.
    time.now = lastTickAt;
    streams.tick();
    await acceptBytes();
  };
  await tick(); // Sends the count.
  const lateMs: number[] = [];

  for (let offset = 0; offset < 1000; offset += 90) {
    time.now = lastTickAt + offset;
    await publish('not silent');
    await acceptBytes();
    const lastWrite = { bytes: wire().length, at: time.now };
    await until(async () => {
      await tick();
      return wire().length > lastWrite.bytes;
    });
    lateMs.push(time.now - lastWrite.at - 0.9 * limits.heartbeatMs);
  }

  assert.ok(Math.max(...lateMs) <= 610 && Math.min(...lateMs) >= -510, `late by ${lateMs}`);
});

test('a stream is closed as stalled when its client accepts no byte for 30 seconds, but not when the client is slow', async () => {
  const { time, open, acceptBytes, tick, client, ends, publish } = await openHarness();
  await open();
  await acceptBytes();
  await publish('x'.repeat(400));
  await nextTurn();
  const advance = (ms: number) => {
    time.now += ms;
    tick();
  };

  advance(16_000);
  client.sink?.acceptBytes(10);
  advance(29_000);
  assert.deepEqual(ends, []);
  advance(15_000);
  advance(15_000);

  assert.deepEqual(ends, [{ reason: 'stalled' }]);
  assert.equal(client.sink?.closed, true);
});

test('the time of a stall begins with the first byte that the client does not accept', async () => {
  const { time, open, acceptBytes, tick, ends, publish } = await openHarness();
  await open();
  await acceptBytes();
  tick(); // Sends the count.
  await acceptBytes();
  const advance = async (ms: number) => {
    time.now += ms;
    tick();
    await nextTurn();
  };

  await advance(12_000); // No heartbeat is due yet.
  await publish('not accepted');
  await nextTurn();
  await advance(2000);
  await advance(27_900);
  assert.deepEqual(ends, []); // A tick looks half a second ahead, but the client gets its full time.
  await advance(99);
  assert.deepEqual(ends, []);
  await advance(1);

  assert.deepEqual(ends, [{ reason: 'stalled' }]);
});

test('a stream over the hard limit of unsent bytes is closed as overflow', async () => {
  const { open, publish, acceptBytes, ends } = await openHarness();
  await open();
  await acceptBytes();
  await Promise.all([publish('small'), publish('x'.repeat(3000))]);
  await nextTurn();

  assert.deepEqual(ends, [{ reason: 'overflow' }]);
});

test('a single event of any size closes no stream, live or replaying', async () => {
  const { open, publish, acceptBytes, ends, received } = await openHarness(['seen']);
  const line = '\n'.repeat(3000);
  await open('e-1');
  await acceptBytes();
  await publish(line);
  await nextTurn();
  await acceptBytes();
  await Promise.all([publish('small'), publish(line)]);
  await nextTurn();
  assert.deepEqual(ends, [{ reason: 'overflow' }]);

  await open('e-2');
  for (let page = 0; page < 5; page += 1) await acceptBytes();

  assert.equal(ends.length, 1);
  assert.deepEqual(received().slice(-2), ['small', line]);
});

test('a stream that Herald closes sends the reason and whether to reconnect', async () => {
  const { open, acceptBytes, wire, ends } = await openHarness();
  const stream = await open();
  stream.close('draining', { retryMs: 1234 });
  stream.close('revoked');

  await acceptBytes();

  assert.match(
    wire(),
    /retry: 1234\nevent: stream.close\ndata: {"code":"draining","reconnect":true,"renew":false}\n\n$/,
  );
  assert.deepEqual(ends, [{ reason: 'draining' }]);
});

test('pending frames are sent before the closing frame', async () => {
  const { open, publish, acceptBytes, wire } = await openHarness();
  const stream = await open();
  await acceptBytes();
  await publish('last words');
  stream.close('draining');

  await acceptBytes();

  assert.match(wire(), /data: last words\nid: e-1\n\nretry: 4000\nevent: stream.close/);
});

test('a replaying stream whose position was trimmed is closed as behind', async () => {
  const history = Array.from({ length: 1000 }, () => 'x'.repeat(40));
  const { open, acceptBytes, store, ends, wire } = await openHarness(history);
  await open('e-1'); // Not cached, so it is read from the store, page by page.
  await acceptBytes();
  store.trimmedSeq = 600;

  await until(async () => {
    await acceptBytes();
    return ends.length > 0;
  });

  assert.deepEqual(ends, [{ reason: 'behind' }]);
  assert.match(wire(), /"code":"behind","reconnect":true/);
});

test('all streams are closed as behind when events were trimmed before their delivery', async () => {
  const { open, acceptBytes, store, eventLog, ends, wire } = await openHarness();
  await open();
  await acceptBytes();
  for (let count = 0; count < 20; count += 1) store.appendExternally(['u:1'], 'of another process');
  store.trimmedSeq = 10;

  await eventLog.catchUp();
  await acceptBytes();

  assert.deepEqual(ends, [{ reason: 'behind' }]);
  assert.match(wire(), /"code":"behind","reconnect":true/);
  assert.equal((await resolveStart(eventLog, getAudiences('1', 's1'), 'e-0')).reason, 'too_old');
});

test('a stream whose replay fails is closed as failed, and its client is asked to reconnect', async () => {
  const { open, store, acceptBytes, ends, wire } = await openHarness(['seen', 'missed']);
  store.readError = new Error('read failed');
  await open('e-1');

  await acceptBytes();

  assert.equal(ends[0]?.reason, 'failed');
  assert.match(wire(), /"code":"failed","reconnect":true/);
});

test('a replaying stream stays open while the event log is unavailable and then continues', async () => {
  const { time, open, publish, store, tick, acceptBytes, ends, received } = await openHarness([
    'seen',
    'missed',
  ]);
  store.readError = new Failure('service_unavailable', 'Cannot read: the log is unavailable');
  await open('e-1');
  await publish('meanwhile');
  await acceptBytes();
  const advance = async (ms: number) => {
    time.now += ms;
    tick();
    await acceptBytes();
  };

  await advance(limits.heartbeatMs);
  assert.deepEqual(received(), []);
  store.readError = undefined;
  await advance(limits.heartbeatMs);

  assert.deepEqual(received(), ['missed', 'meanwhile']);
  assert.deepEqual(ends, []);
});

test('a client receives a count that changed during replay once its stream is live again', async () => {
  const { userCount, tick, open, publish, acceptBytes, wire } = await openHarness();
  await open();
  await acceptBytes();
  tick(); // The first count, which the client accepts.
  await acceptBytes();
  await publish('x'.repeat(600));
  await publish('y'.repeat(600));
  await nextTurn(); // More than the soft limit is unsent.

  userCount.remoteUserCount = 4;
  tick();
  await nextTurn();
  const wireWhileReplaying = wire();
  await acceptBytes();
  tick();
  await acceptBytes();
  tick();
  await acceptBytes();

  assert.doesNotMatch(wireWhileReplaying, /data: 5\n/);
  assert.deepEqual(wire().match(/event: count\ndata: \d+\n/g), [
    'event: count\ndata: 1\n',
    'event: count\ndata: 5\n',
  ]);
});
