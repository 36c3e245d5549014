import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SimulatedClient } from '../../test/support/clients/simulated-client.js';
import { MemoryLog } from '../../test/support/databases/memory-log.js';
import { until } from '../../test/support/until.js';
import { Failure } from '../errors.js';
import { EventLog } from '../event-log/event-log.js';
import { audiencesOf } from '../events/audience.js';
import { silentLog } from '../logging/log.js';
import { Connection, type Ending } from './event-stream.js';
import { Registry } from './registry.js';
import { UserCount } from './user-count.js';
import { Outbox } from './write-scheduler.js';

const limits = {
  heartbeatMs: 15_000,
  stallMs: 30_000,
  unsentSoftBytes: 500,
  unsentHardBytes: 2000,
  retryMs: 2000,
};
const nextTick = () => new Promise((resolve) => setImmediate(resolve));

/** A log, a registry and one client of user 1 that takes bytes when the test says so. */
async function openWorld(history: readonly string[] = []) {
  const store = new MemoryLog('e');
  for (const data of history) store.write(['u:1'], data);
  store.openGates();
  const world = { now: 1_000_000 };
  const clock = () => world.now;
  const logLimits = { ageMaxMs: 1e9, eventsMax: 1e9, bytesMax: 1e9 };
  const log = await EventLog.open({ store, log: silentLog, clock, limits: logLimits });
  const registry = new Registry({
    limits: { streamsMax: 10, perUserMax: 10, perIpMax: 10 },
    uptime: clock,
  });
  log.subscribe(registry);
  const userCount = new UserCount(registry);
  /** As `Streams` does it, once a second. */
  const tick = () => {
    registry.tick();
    userCount.tick();
  };
  const audiences = audiencesOf('1', 's1');
  const endings: Ending[] = [];
  let wire = '';
  const client = new SimulatedClient('1', (bytes) => {
    wire += bytes.toString();
  });
  const outbox = new Outbox(clock);
  const open = async (lastEventId?: string) => {
    const start = await log.startFor(audiences, lastEventId);
    const connection = new Connection({
      id: 'c1',
      reader: { userId: '1', sessionId: 's1', audiences, ip: 'ip', tokenHash: undefined },
      start,
      sink: client.connect(),
      log,
      outbox,
      limits,
      uptime: clock,
      random: () => 0.5,
      onEnd: (ended, ending) => {
        endings.push(ending);
        registry.remove(ended);
        userCount.remove(ended);
      },
    });
    registry.add(connection);
    userCount.add(connection);
    connection.open();
    return connection;
  };
  const publish = (data: string, userId = '1') =>
    log.append({
      events: [{ audiences: [`u:${userId}`], type: undefined, data, expiresAt: undefined }],
      idempotency: undefined,
    });
  /** The client takes what there is, and what comes when it has taken that. */
  const take = async (most = 1_000_000) => {
    for (let round = 0; round < 3; round += 1) {
      await nextTick();
      client.sink?.take(most);
    }
    await nextTick();
  };
  const received = () => client.received.map(({ data }) => data);
  return {
    world,
    store,
    log,
    registry,
    userCount,
    tick,
    client,
    endings,
    open,
    publish,
    take,
    received,
    wire: () => wire,
  };
}

test('a stream begins with a retry and stream.open, before anything else', async () => {
  const { open, publish, take, wire } = await openWorld();
  await open();
  await publish('first');

  await take();

  const opening = '{"resumed":false,"reason":"fresh","id":"e-0"}';
  assert.equal(
    wire(),
    `retry: 4000\n\nevent: stream.open\ndata: ${opening}\n\nid: e-1\ndata: first\n\n`,
  );
});

test('a returning client first receives what it missed, then what is new', async () => {
  const { open, publish, take, received, wire } = await openWorld();
  for (const data of ['seen', 'missed 1', 'missed 2']) await publish(data);
  await publish('for somebody else', '2');
  await open('e-1');
  await publish('new');

  await take();

  assert.deepEqual(received(), ['missed 1', 'missed 2', 'new']);
  assert.match(wire(), /"resumed":true,"reason":"resumed","id":"e-1"/);
});

test('events of one tick leave as one write', async () => {
  const { open, publish, take, client } = await openWorld();
  await open();
  await take();
  const before = client.writes;
  await Promise.all(['a', 'b', 'c'].map((data) => publish(data)));

  await take();

  assert.equal(client.writes - before, 1);
});

test('a slow client goes back to the log, misses nothing, and turns live again', async () => {
  const { open, publish, take, received, client } = await openWorld();
  const connection = await open();
  await take();
  const data = Array.from({ length: 40 }, (_, index) => `event ${index} ${'x'.repeat(50)}`);
  for (const item of data) {
    await publish(item);
    await nextTick();
  }

  assert.equal(connection.isLive, false);
  assert.ok((client.sink?.queuedBytes ?? 0) < limits.unsentSoftBytes + 200);
  await until(async () => {
    await take(100);
    return received().length >= data.length;
  });

  assert.deepEqual(received(), data);
  assert.equal(connection.isLive, true);
});

test('volatile events skip a client that is behind', async () => {
  const { open, publish, take, registry, wire } = await openWorld();
  await open();
  await take();
  await publish('x'.repeat(600));
  await nextTick();
  registry.deliverVolatile(
    { audiences: ['all'] },
    { seq: 0, bytes: Buffer.from('data: volatile\n\n') },
  );

  await take();
  registry.deliverVolatile(
    { audiences: ['all'] },
    { seq: 0, bytes: Buffer.from('data: later\n\n') },
  );
  await take();

  assert.doesNotMatch(wire(), /volatile/);
  assert.match(wire(), /data: later/);
});

test('an event that was read before it was delivered arrives once', async () => {
  const { open, take, received, store, log } = await openWorld(['seen', 'missed']);
  store.write(['u:1'], 'of another process'); // In the log, but nobody has delivered it here.
  await open('e-1');
  await take();

  await log.catchUp();
  await take();

  assert.deepEqual(received(), ['missed', 'of another process']);
});

test('what a stream begins with and what its client has missed are one write', async () => {
  const { client, open, take, received } = await openWorld(['seen', 'missed', 'missed, too']);

  await open('e-1');
  await take();

  assert.deepEqual(received(), ['missed', 'missed, too']);
  assert.equal(client.writes, 1);
});

test('an event that is written while a page is being read is not skipped', async () => {
  const { open, publish, take, received, store, log } = await openWorld(['seen', 'missed']);
  const read = store.read.bind(store);
  store.read = async (...range) => {
    const page = await read(...range);
    store.read = read;
    await publish('just now');
    return page;
  };

  await open('e-1');
  await take();

  assert.equal(log.head, 3);
  assert.deepEqual(received(), ['missed', 'just now']);
});

test('a sink that has closed is read for no more, also before that is told', async () => {
  const history = Array.from({ length: 20 }, (_, index) => `${index} ${'x'.repeat(400)}`);
  const { open, store, take, client } = await openWorld(history);
  let reads = 0;
  const read = store.read.bind(store);
  store.read = (...range) => {
    reads += 1;
    return read(...range);
  };
  await open('e-1');
  await until(() => (client.sink?.queuedBytes ?? 0) > 400);
  const before = reads;

  Object.assign(client.sink ?? {}, { closed: true });
  await take();

  assert.equal(reads, before);
});

test('silence is filled with a comment every 15 seconds, and only silence', async () => {
  const { world, open, publish, take, tick, wire } = await openWorld();
  await open();
  await take();
  tick(); // Tells the count, which is no silence either.
  await take();
  const comments = () => wire().split(':\n\n').length - 1;
  const pass = async (ms: number) => {
    world.now += ms;
    tick();
    await take();
  };

  await pass(14_000);
  assert.equal(comments(), 0);
  await pass(1000);
  assert.equal(comments(), 1);
  await pass(10_000);
  await publish('not silent');
  await take();
  await pass(10_000);
  assert.equal(comments(), 1);
  await pass(5000);
  assert.equal(comments(), 2);
});

test('a comment comes about half a second early or late at most', async () => {
  const { world, open, publish, take, wire, ...streams } = await openWorld();
  await open();
  await take();
  let tickAt = world.now;
  const tick = async () => {
    tickAt += 1003; // Timers are late.
    world.now = tickAt;
    streams.tick();
    await take();
  };
  await tick(); // Tells the count.
  const late: number[] = [];

  for (let offset = 0; offset < 1000; offset += 90) {
    world.now = tickAt + offset;
    await publish('not silent');
    await take();
    const silentSince = { bytes: wire().length, at: world.now };
    await until(async () => {
      await tick();
      return wire().length > silentSince.bytes;
    });
    late.push(world.now - silentSince.at - limits.heartbeatMs);
  }

  assert.ok(Math.max(...late) <= 610 && Math.min(...late) >= -510, `late by ${late}`);
});

test('a client that takes no byte for 30 seconds is cut off as stalled, one that takes some is not', async () => {
  const { world, open, take, tick, client, endings, publish } = await openWorld();
  await open();
  await take();
  await publish('x'.repeat(400));
  await nextTick();
  const pass = (ms: number) => {
    world.now += ms;
    tick();
  };

  pass(16_000);
  client.sink?.take(10);
  pass(29_000);
  assert.deepEqual(endings, []);
  pass(15_000);
  pass(15_000);

  assert.deepEqual(endings, [{ reason: 'stalled' }]);
  assert.equal(client.sink?.closed, true);
});

test('more unsent bytes than the hard limit cut the stream off', async () => {
  const { open, publish, take, endings } = await openWorld();
  await open();
  await take();
  await publish('x'.repeat(3000));
  await nextTick();

  assert.deepEqual(endings, [{ reason: 'overflow' }]);
});

test('a stream that Herald ends says why, and whether to come back', async () => {
  const { open, take, wire, endings } = await openWorld();
  const connection = await open();
  connection.close('draining', { retryMs: 1234 });
  connection.close('revoked');

  await take();

  assert.match(
    wire(),
    /retry: 1234\n\nevent: stream.close\ndata: {"code":"draining","reconnect":true}\n\n$/,
  );
  assert.deepEqual(endings, [{ reason: 'draining' }]);
});

test('what is pending goes out before the goodbye', async () => {
  const { open, publish, take, wire } = await openWorld();
  const connection = await open();
  await take();
  await publish('last words');
  connection.close('replaced');

  await take();

  assert.match(wire(), /data: last words\n\nretry: 4000\n\nevent: stream.close/);
});

test('a replaying client whose place in the log is trimmed away is told so', async () => {
  const history = Array.from({ length: 1000 }, () => 'x'.repeat(40));
  const { open, take, store, endings, wire } = await openWorld(history);
  await open('e-1'); // Of a process before this one: read from the store, page by page.
  await take();
  store.trimmedSeq = 600;

  await until(async () => {
    await take();
    return endings.length > 0;
  });

  assert.deepEqual(endings, [{ reason: 'behind' }]);
  assert.match(wire(), /"code":"behind","reconnect":true/);
});

test('when events were trimmed before this process could deliver them, everybody is told', async () => {
  const { open, take, store, log, endings, wire } = await openWorld();
  await open();
  await take();
  for (let count = 0; count < 20; count += 1) store.write(['u:1'], 'of another process');
  store.trimmedSeq = 10;

  await log.catchUp();
  await take();

  assert.deepEqual(endings, [{ reason: 'behind' }]);
  assert.match(wire(), /"code":"behind","reconnect":true/);
  assert.equal((await log.startFor(audiencesOf('1', 's1'), 'e-0')).reason, 'too_old');
});

test('a log that cannot be read ends the stream as failed, to be resumed', async () => {
  const { open, store, take, endings, wire } = await openWorld(['seen', 'missed']);
  store.trouble = new Error('disk on fire');
  await open('e-1');

  await take();

  assert.equal(endings[0]?.reason, 'failed');
  assert.match(wire(), /"code":"failed","reconnect":true/);
});

test('a log that is away for a while ends no stream: it is read when it is back', async () => {
  const { world, open, publish, store, tick, take, endings, received } = await openWorld([
    'seen',
    'missed',
  ]);
  store.trouble = new Failure('service_unavailable', 'Cannot read: the log is away');
  await open('e-1');
  await publish('meanwhile');
  await take();
  const pass = async (ms: number) => {
    world.now += ms;
    tick();
    await take();
  };

  await pass(limits.heartbeatMs);
  assert.deepEqual(received(), []);
  store.trouble = undefined;
  await pass(limits.heartbeatMs);

  assert.deepEqual(received(), ['missed', 'meanwhile']);
  assert.deepEqual(endings, []);
});

test('a client that was behind when the count changed is told it once it has caught up', async () => {
  const { userCount, tick, open, publish, take, wire } = await openWorld();
  await open();
  await take();
  tick(); // The first count, which it takes.
  await take();
  await publish('x'.repeat(600));
  await publish('y'.repeat(600));
  await nextTick(); // More than the soft limit is on its way.

  userCount.usersElsewhere = 4;
  tick();
  await nextTick();
  const whileBehind = wire();
  await take();
  tick();
  await take();
  tick();
  await take();

  assert.doesNotMatch(whileBehind, /data: 5\n/);
  assert.deepEqual(wire().match(/event: count\ndata: \d+\n/g), [
    'event: count\ndata: 1\n',
    'event: count\ndata: 5\n',
  ]);
});
