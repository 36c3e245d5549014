import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { testOnDialects } from '../../../test/support/databases/dialects.js';
import { databaseFor } from '../../../test/support/databases/embedded.js';
import { outlineOutcome } from '../../../test/support/outline-outcome.js';
import { resolveStart } from '../../../test/support/resolve-start.js';
import { unlimitedRetention } from '../../../test/support/unlimited-retention.js';
import { until } from '../../../test/support/until.js';
import { type Database, type Sql, sql } from '../../db/database.js';
import { Failure } from '../../errors.js';
import { ApiKeys, publisherKeys } from '../../identity/api-keys.js';
import { silentLogger } from '../../logging/logger.js';
import { EventLog } from '../event-log.js';
import type { LoggableEvent } from '../log-store.js';
import { controlEntryAppender } from '../open.js';
import { SqlLogStore } from './sql-log-store.js';

const test = await testOnDialects('the event log');

const event = (data: string, audiences = ['u:1'], expiresAt?: number): LoggableEvent => ({
  audiences,
  type: 'note',
  data,
  expiresAt,
});
const request = (...events: LoggableEvent[]) => ({ events, idempotency: undefined });
const keyedRequest = (key: string, body: string, ...events: LoggableEvent[]) => ({
  events,
  idempotency: { key, bodyHash: body.padEnd(64, '0') },
});

/** Stored size of an event with one byte of data and one recipient. */
const smallEventBytes = 1 + 128;

const audiences = ['all', 'u:1', 's:x'];
const page = { eventsMax: 100, bytesMax: 1000 };

async function openStore(t: TestContext) {
  const db = await databaseFor(t);
  const time = { now: 1_800_000_000_000 };
  const wallClock = () => time.now;
  const store = await SqlLogStore.open(db, { wallClock, newEpoch: 'e1' });
  const openLog = (limits = unlimitedRetention) =>
    EventLog.open({ store, log: silentLogger, wallClock, limits });
  return { db, time, wallClock, store, openLog };
}

test('sequence numbers start at 1 and have no gaps across requests and restarts', async (t) => {
  const { db, wallClock, store } = await openStore(t);

  const first = await store.append([request(event('a'), event('b')), request(event('c'))]);
  const again = await SqlLogStore.open(db, { wallClock, newEpoch: 'other' });
  const second = await again.append([request(event('d'))]);

  assert.deepEqual([...first, ...second].map(outlineOutcome), [
    'appended 1 2',
    'appended 3',
    'appended 4',
  ]);
  const { epoch, seq, bytes } = await again.state();
  assert.deepEqual({ epoch, seq, bytes }, { epoch: 'e1', seq: 4, bytes: 4 * smallEventBytes });
});

test('a reader receives only events for its audiences, in order, page by page', async (t) => {
  const { store } = await openStore(t);
  const recipients = [['u:1'], ['all'], ['u:2'], ['s:x'], ['u:1', 'u:2'], ['s:y'], ['all']];
  await store.append([request(...recipients.map((to, index) => event(String(index + 1), to)))]);
  const seqs = async (after: number, limit: number) =>
    (
      await store.read(audiences, { after, upTo: 1e6 }, { eventsMax: limit, bytesMax: 1000 })
    ).events.map(({ seq }) => seq);

  assert.deepEqual(await seqs(0, 100), [1, 2, 4, 5, 7]);
  assert.deepEqual(await seqs(0, 2), [1, 2]);
  assert.deepEqual(await seqs(2, 2), [4, 5]);
  assert.deepEqual(await seqs(7, 2), []);
});

test('large and small events are read in order and unchanged', async (t) => {
  const { store } = await openStore(t);
  const written = ['small', 'l'.repeat(21), '', 's'.repeat(20), 'L'.repeat(90), 'out'];
  await store.append([request(...written.map((data) => event(data)))]);

  const { events, more } = await store.read(
    ['u:1'],
    { after: 0, upTo: 1e6 },
    { eventsMax: 10, bytesMax: 100 },
  );

  assert.deepEqual(
    events.map(({ seq, type, data }) => [seq, type, data]),
    written.slice(0, 5).map((data, index) => [index + 1, 'note', data]),
  );
  assert.equal(more, true);
});

test('a page ends with the event that reaches the byte limit, and has at least one', async (t) => {
  const { store } = await openStore(t);
  const sizes = [10, 10, 30, 10, 100, 10, 10];
  await store.append([request(...sizes.map((size) => event('é'.repeat(size / 2))))]);
  const read = async (after: number, bytesMax: number, eventsMax = 100) => {
    const { events, more } = await store.read(
      ['u:1'],
      { after, upTo: 1e6 },
      { eventsMax, bytesMax },
    );
    return { seqs: events.map(({ seq }) => seq), more };
  };

  assert.deepEqual(await read(0, 20), { seqs: [1, 2], more: true });
  assert.deepEqual(await read(0, 21), { seqs: [1, 2, 3], more: true });
  assert.deepEqual(await read(4, 1), { seqs: [5], more: true });
  assert.deepEqual(await read(5, 20), { seqs: [6, 7], more: false });
  assert.deepEqual(await read(5, 10), { seqs: [6], more: true });
  assert.deepEqual(await read(0, 1e6), { seqs: [1, 2, 3, 4, 5, 6, 7], more: false });
  assert.deepEqual(await read(0, 1e6, 3), { seqs: [1, 2, 3], more: true });
  assert.deepEqual(await read(7, 20), { seqs: [], more: false });
});

test('a read of a range returns every event with its audiences', async (t) => {
  const { store } = await openStore(t);
  await store.append([request(event('a'), event('b', ['u:1', 'u:2']), event('c'))]);

  const { entries } = await store.readAll({ after: 1, upTo: 2 }, 1e6);

  assert.deepEqual(entries, [
    { seq: 2, audiences: ['u:1', 'u:2'], type: 'note', data: 'b', expiresAt: undefined },
  ]);
});

test('a read of a range ends with the event that reaches the byte limit, recipients included', async (t) => {
  const { store } = await openStore(t);
  const wide = Array.from({ length: 10 }, (_, index) => `u:${index}`);
  await store.append([request(event('é'.repeat(50)), event('b', wide), event('c'), event('d'))]);
  const sizes = [100 + 128, 1 + 1280, smallEventBytes, smallEventBytes];
  const read = async (after: number, bytesMax: number) => {
    const { entries, upTo } = await store.readAll({ after, upTo: 4 }, bytesMax);
    return [entries.map(({ seq }) => seq), upTo];
  };

  assert.deepEqual(await read(0, 1), [[1], 1]);
  assert.deepEqual(await read(0, 228), [[1], 1]);
  assert.deepEqual(await read(0, 229), [[1, 2], 2]);
  assert.deepEqual(await read(1, 1281 + 129), [[2, 3], 3]);
  assert.deepEqual(await read(0, 1e6), [[1, 2, 3, 4], 4]);
  assert.equal(
    (await store.state()).bytes,
    sizes.reduce((sum, size) => sum + size),
  );
});

test('a page says how far the event log was trimmed when it was read', async (t) => {
  const { store } = await openStore(t);
  await store.append([request(event('a'), event('b', ['u:2']), event('c'))]);
  const read = (reader: string) => store.read([reader], { after: 0, upTo: 3 }, page);

  assert.equal((await read('u:1')).trimmedSeq, 0);
  await store.trim({ after: 0, upTo: 2, eventCount: 2, bytes: 2 * smallEventBytes, now: 0 });

  const kept = await read('u:1');
  assert.deepEqual([kept.events.map(({ seq }) => seq), kept.trimmedSeq], [[3], 2]);
  assert.deepEqual(await read('u:2'), { events: [], more: false, trimmedSeq: 2 });
});

test('a read reports a gap only if a trimmed event was for the reader', async (t) => {
  const { store, openLog } = await openStore(t);
  const eventLog = await openLog();
  await eventLog.append(request(event('a'), event('b', ['u:2']), event('c', ['u:3'])));
  const later = await openLog(); // Opened after the events, so nothing is cached.

  await store.trim({ after: 0, upTo: 2, eventCount: 2, bytes: 2 * smallEventBytes, now: 0 });

  const hasGap = async (reader: string, after: number) =>
    (await later.read([reader], after, 1e6)).gap;
  assert.equal(await hasGap('u:1', 0), true);
  assert.equal(await hasGap('u:1', 1), false);
  assert.equal(await hasGap('u:2', 1), true);
  assert.equal(await hasGap('u:3', 0), false);
});

test('an event that expired before a process reads it is not delivered to its live streams', async (t) => {
  const { time, openLog } = await openStore(t);
  const [eventLog, behind] = [await openLog(), await openLog()];
  const delivered: string[] = [];
  behind.subscribe({
    deliver: ({ data }) => delivered.push(data),
    deliverVolatile() {},
    applyControl() {},
    gap: () => delivered.push('gap'),
  });
  const expiresAt = time.now + 1000;
  await eventLog.append(request(event('1'), event('expires', ['u:1'], expiresAt), event('3')));

  time.now = expiresAt;
  await behind.catchUp();

  assert.deepEqual(delivered, ['1', '3']);
  assert.equal(behind.head, 3);
  const { frames } = await behind.read(audiences, 0, 1e6);
  assert.deepEqual(
    frames.map(({ seq }) => seq),
    [1, 3],
  );
});

test('catchUp reports a gap when events are trimmed while it reads them', async (t) => {
  const { db, wallClock, store } = await openStore(t);
  let runBeforeNext = async () => {};
  const hookedDb: Database = {
    dialect: db.dialect,
    async query<Row extends object>(statement: Sql) {
      const rows = await db.query<Row>(statement);
      if (statement.texts.join('').includes('seq <=')) await runBeforeNext();
      return rows;
    },
    execute: (statement) => db.execute(statement),
    transaction: (work) => db.transaction(work),
    close: () => db.close(),
  };
  const eventLog = await EventLog.open({
    store: await SqlLogStore.open(hookedDb, { wallClock, newEpoch: 'x' }),
    ...{ log: silentLogger, wallClock, limits: unlimitedRetention },
  });
  const delivered: unknown[] = [];
  eventLog.subscribe({
    deliver: ({ audiences }) => delivered.push(audiences),
    deliverVolatile() {},
    applyControl() {},
    gap: () => delivered.push('gap'),
  });
  await store.append([request(event('a'), event('b'))]);
  runBeforeNext = async () =>
    void (await store.trim({ after: 0, upTo: 2, eventCount: 2, bytes: 2, now: 0 }));

  await eventLog.catchUp();

  assert.deepEqual(delivered, ['gap']);
  assert.equal(eventLog.head, 2);
});

test('unusual data is stored and read unchanged', async (t) => {
  const { store } = await openStore(t);
  const data = [
    "it's",
    '?',
    '$1',
    '',
    '\r\n',
    '\u2028',
    '\ufeff',
    'é🐝',
    '"; drop table events; --',
  ];
  await store.append([request(...data.map((text) => event(text)))]);

  assert.deepEqual(
    (await store.read(['u:1'], { after: 0, upTo: 1e6 }, page)).events.map((found) => found.data),
    data,
  );
});

test('a repeated idempotency key returns the same numbers for a day, but only with the same body', async (t) => {
  const { time, store } = await openStore(t);
  const append = async (...parts: Parameters<typeof keyedRequest>) =>
    (await store.append([keyedRequest(...parts)])).map(outlineOutcome).join();

  assert.deepEqual(await append('k', 'b', event('1')), 'appended 1');
  assert.deepEqual(await append('k', 'b', event('1')), 'repeated 1');
  assert.deepEqual(await append('k', 'c', event('2')), 'conflict');
  assert.deepEqual(await append('l', 'c', event('2')), 'appended 2');
  time.now += 24 * 60 * 60 * 1000 - 1;
  assert.deepEqual(await append('k', 'b', event('1')), 'repeated 1');
  time.now += 1;
  assert.deepEqual(await append('k', 'c', event('3')), 'appended 3');
});

const keyed = (key: string, data: string): LoggableEvent => ({
  ...event(data),
  idempotency: { key, bodyHash: data.padEnd(64, '0'), index: undefined },
});

test('events with their own idempotency keys are appended once, whichever events are appended with them', async (t) => {
  const { store } = await openStore(t);
  const append = async (...requests: Parameters<typeof request>[]) => {
    const outcomes = await store.append(requests.map((events) => request(...events)));
    return outcomes.map(outlineOutcome);
  };

  assert.deepEqual(await append([keyed('a', '1'), event('2'), keyed('b', '3')]), [
    'appended 1 2 3',
  ]);
  assert.deepEqual(await append([keyed('b', '3')]), ['repeated 3']);
  assert.deepEqual(
    await append([keyed('c', '4'), keyed('a', '1'), event('5'), keyed('c', '4')], [event('6')]),
    ['appended 4 1 5 4', 'appended 6'],
  );
  assert.deepEqual(await append([keyed('d', '7')], [keyed('d', '7')], [keyed('d', 'other')]), [
    'appended 7',
    'repeated 7',
    'conflict',
  ]);
  assert.deepEqual(await append([event('x'), keyed('e', '8'), keyed('a', 'other')]), ['conflict']);
  assert.deepEqual(await append([keyed('e', '8')]), ['appended 8']);
  const { eventCount, bytes } = await store.state();
  assert.deepEqual({ eventCount, bytes }, { eventCount: 8, bytes: 8 * smallEventBytes });
  const { events: read } = await store.read(['u:1'], { after: 0, upTo: 100 }, page);
  assert.equal(read.map(({ data }) => data).join(''), '12345678');
});

test('a conflict names the event whose idempotency key was used before', async (t) => {
  const { store } = await openStore(t);
  await store.append([request(keyed('a', '1'))]);
  const second = keyed('a', 'other');

  const [outcome] = await store.append([request(event('2'), second)]);

  assert.deepEqual(outcome, { kind: 'conflict', event: second });
});

test('a revoked API key does not affect the same idempotency key of another API key', async (t) => {
  const { store, keys, one, two } = await openWithKeys(t);
  await keys.revoke('one'); // Number 1.
  const by = (keyId: string, ...events: LoggableEvent[]) => ({ ...request(...events), keyId });

  const outcomes = await store.append([
    by(one, keyed('k', 'a')),
    by(two, keyed('k', 'a')),
    by(two, keyed('k', 'a'), event('b')),
  ]);

  assert.deepEqual(outcomes.map(outlineOutcome), ['revoked', 'appended 2', 'appended 2 3']);
  assert.equal((await store.state()).bytes, 2 * smallEventBytes);
});

test('requests with several idempotency keys succeed while other processes publish the same keys', async (t) => {
  const { db, wallClock, store } = await openStore(t);
  const options = { wallClock, newEpoch: 'x' };
  const [second, third] = [
    await SqlLogStore.open(db, options),
    await SqlLogStore.open(db, options),
  ];

  for (let round = 0; round < 10; round += 1) {
    const events = Array.from({ length: 20 }, (_, index) => keyed(`${round}-${index}`, 'x'));
    const one = async () => {
      for (const single of events) await store.append([request(single)]);
    };
    const outcomes = await Promise.all([
      one(),
      second.append([request(...events)]),
      third.append([request(...[...events].reverse())]),
    ]);
    assert.equal(outcomes.length, 3);
  }

  assert.equal((await store.state()).eventCount, 200);
});

test('of concurrent requests with one idempotency key, one appends and all return its ids', async (t) => {
  const { store } = await openStore(t);
  const allAtOnce = (key: string) =>
    Promise.all([1, 2, 3].map(() => store.append([keyedRequest(key, 'b', event('1'))])));

  for (let round = 1; round <= 10; round += 1) {
    const outcomes = (await allAtOnce(`k${round}-`)).flat();

    assert.deepEqual(outcomes.map(outlineOutcome).sort(), [
      `appended ${round}`,
      `repeated ${round}`,
      `repeated ${round}`,
    ]);
  }
});

test('expired idempotency keys are deleted', async (t) => {
  const { db, time, store } = await openStore(t);
  await store.append([keyedRequest('k', 'b', event('1'))]);
  const rows = () => db.query(sql`select key_hash from idempotency`);

  assert.equal(await store.sweepIdempotencyKeys(time.now + 24 * 60 * 60 * 1000 - 1), 0);
  assert.equal((await rows()).length, 1);
  assert.equal(await store.sweepIdempotencyKeys(time.now + 24 * 60 * 60 * 1000), 1);
  assert.equal((await rows()).length, 0);
});

test('concurrent publishes are numbered in arrival order and delivered in order', async (t) => {
  const { openLog } = await openStore(t);
  const eventLog = await openLog();
  const delivered: number[] = [];
  eventLog.subscribe({
    deliver: (_, { seq }) => delivered.push(seq),
    deliverVolatile() {},
    applyControl() {},
    gap() {},
  });

  const appended = await Promise.all(
    Array.from({ length: 300 }, (_, index) => eventLog.append(request(event(String(index))))),
  );

  const numbers = Array.from({ length: 300 }, (_, index) => index + 1);
  assert.deepEqual(
    appended.flatMap(({ ids }) => ids),
    numbers.map((seq) => `e1-${seq}`),
  );
  assert.deepEqual(delivered, numbers);
});

test('two concurrent publishes with the same key are written once', async (t) => {
  const { openLog } = await openStore(t);
  const eventLog = await openLog();

  const both = await Promise.all([
    eventLog.append(keyedRequest('k', 'b', event('x'))),
    eventLog.append(keyedRequest('k', 'b', event('x'))),
  ]);

  assert.deepEqual(both, [
    { ids: ['e1-1'], isRepeated: false },
    { ids: ['e1-1'], isRepeated: true },
  ]);
  assert.equal(eventLog.head, 1);
});

test('the same key with another body is a conflict, and nothing is written', async (t) => {
  const { openLog } = await openStore(t);
  const eventLog = await openLog();
  await eventLog.append(keyedRequest('k', 'b', event('x')));

  await assert.rejects(eventLog.append(keyedRequest('k', 'other', event('y'))), (error) => {
    assert.ok(error instanceof Failure);
    return error.name === 'conflict';
  });
  assert.equal(eventLog.head, 1);
});

test('when one of the requests of a commit cannot be written, only that request fails', async (t) => {
  const { openLog } = await openStore(t);
  const eventLog = await openLog();
  const delivered: string[] = [];
  eventLog.subscribe({
    deliver: ({ data }) => delivered.push(data),
    deliverVolatile() {},
    applyControl() {},
    gap() {},
  });
  const bad = { ...event('bad'), audiences: ['u:1', 'u:1'] }; // Breaks a primary key.

  const outcomes = await Promise.allSettled(
    [event('a'), event('b'), bad, event('c')].map((item) => eventLog.append(request(item))),
  );

  const statuses = outcomes.map(({ status }) => status);
  assert.deepEqual(statuses, ['fulfilled', 'fulfilled', 'rejected', 'fulfilled']);
  assert.deepEqual(delivered, ['a', 'b', 'c']);
  assert.deepEqual(outcomes.at(-1), {
    status: 'fulfilled',
    value: { ids: ['e1-3'], isRepeated: false },
  });
});

test('events of another process are delivered in order with local ones', async (t) => {
  const { db, wallClock, openLog } = await openStore(t);
  const eventLog = await openLog();
  const other = await SqlLogStore.open(db, { wallClock, newEpoch: 'x' });
  const delivered: string[] = [];
  eventLog.subscribe({
    deliver: ({ data }) => delivered.push(data),
    deliverVolatile() {},
    applyControl() {},
    gap() {},
  });

  await other.append([request(event('remote 1'))]);
  await eventLog.append(request(event('local')));
  await other.append([request(event('remote 2'))]);
  await eventLog.catchUp();

  assert.deepEqual(delivered, ['remote 1', 'local', 'remote 2']);
});

const ended = (...sessionIds: string[]) => ({ kind: 'sessions_ended', sessionIds }) as const;

test('each control entry has a sequence number, in order with events, and no audience', async (t) => {
  const { db, store, wallClock } = await openStore(t);
  const append = controlEntryAppender(db, wallClock);

  await store.append([request(event('a'))]);
  await db.transaction((tx) => append(tx, [ended('s1'), ended('s2')]));
  await store.append([request(event('b'))]);

  assert.deepEqual((await store.readAll({ after: 0, upTo: 10 }, 1e6)).entries, [
    { seq: 1, ...event('a'), expiresAt: undefined },
    { seq: 2, control: '{"kind":"sessions_ended","sessionIds":["s1"]}' },
    { seq: 3, control: '{"kind":"sessions_ended","sessionIds":["s2"]}' },
    { seq: 4, ...event('b'), expiresAt: undefined },
  ]);
  const { seq, eventCount, bytes } = await store.state();
  assert.deepEqual(
    { seq, eventCount, bytes },
    { seq: 4, eventCount: 2, bytes: 2 * smallEventBytes },
  );
  const all = { after: 0, upTo: 10 };
  const read = await store.read(['all', 'u:1', 's:s1'], all, page);
  assert.deepEqual(
    read.events.map((found) => found.seq),
    [1, 4],
  );
});

test('a control entry that is rolled back with its change takes no sequence number', async (t) => {
  const { db, store, wallClock } = await openStore(t);
  const append = controlEntryAppender(db, wallClock);

  const failing = db.transaction(async (tx) => {
    await append(tx, [ended('s1')]);
    throw new Error('on purpose');
  });

  await assert.rejects(failing, /on purpose/);
  assert.deepEqual((await store.append([request(event('a'))])).map(outlineOutcome), ['appended 1']);
});

test('control entries are applied in sequence order with the events of all processes', async (t) => {
  const { db, store, wallClock, openLog } = await openStore(t);
  const append = controlEntryAppender(db, wallClock);
  const eventLog = await openLog();
  const other = await SqlLogStore.open(db, { wallClock, newEpoch: 'x' });
  const received: unknown[] = [];
  eventLog.subscribe({
    deliver: ({ data }, { seq }) => received.push([seq, data]),
    deliverVolatile() {},
    applyControl: (entry, seq) => received.push([seq, entry]),
    gap: () => received.push('gap'),
  });

  await eventLog.append(request(event('ours')));
  await db.transaction((tx) => append(tx, [ended('s1')]));
  await eventLog.append(request(event('after s1')));
  await other.append([request(event('theirs'))]);
  await db.transaction((tx) => append(tx, [ended('s2')]));
  await eventLog.catchUp();

  assert.deepEqual(received, [
    [1, 'ours'],
    [2, ended('s1')],
    [3, 'after s1'],
    [4, 'theirs'],
    [5, ended('s2')],
  ]);
  const { frames, end } = await eventLog.read(['u:1'], 0, 1e6);
  assert.deepEqual(
    frames.map((frame) => frame.seq),
    [1, 3, 4],
  );
  assert.equal(end, 5);
  assert.equal((await store.state()).seq, 5);
});

test('a volatile event is delivered after the entries that other processes appended before it', async (t) => {
  const { db, wallClock, openLog } = await openStore(t);
  const lagging = await openLog();
  const delivered: unknown[] = [];
  lagging.subscribe({
    deliver: ({ data }) => delivered.push(data),
    deliverVolatile: ({ data }) => delivered.push(data),
    applyControl: (entry) => delivered.push(entry),
    gap: () => delivered.push('gap'),
  });
  const append = controlEntryAppender(db, wallClock);
  await db.transaction((tx) => append(tx, [ended('s1')]));

  await lagging.publish([{ ...event('volatile 1'), volatile: true }], undefined);
  await db.transaction((tx) => append(tx, [ended('s2')]));
  const mixed = [
    { ...event('logged'), volatile: false },
    { ...event('volatile 2'), volatile: true },
  ];
  await lagging.publish(mixed, undefined);

  assert.deepEqual(delivered, [ended('s1'), 'volatile 1', ended('s2'), 'logged', 'volatile 2']);
});

test('a lagging process replays only events up to the last entry that it has applied', async (t) => {
  const { db, wallClock, openLog } = await openStore(t);
  const before = await openLog();
  await before.append(request(event('1')));
  const lagging = await openLog(); // Has nothing in memory, so it reads the store.
  await db.transaction((tx) => controlEntryAppender(db, wallClock)(tx, [ended('s1')]));
  await before.append(request(event('3')));

  const page = await lagging.read(['u:1'], 0, 1e6);

  assert.deepEqual(
    page.frames.map(({ seq }) => seq),
    [1],
  );
  assert.deepEqual([page.end, page.more], [1, false]);
  await lagging.catchUp();
  assert.deepEqual(
    (await lagging.read(['u:1'], page.end, 1e6)).frames.map(({ seq }) => seq),
    [3],
  );
});

test('a fresh stream of a lagging process starts at the head of the database', async (t) => {
  const { openLog } = await openStore(t);
  const [lagging, other] = [await openLog(), await openLog()];
  await other.append(request(event('before the open')));

  const { seq } = await resolveStart(lagging, ['u:1']);

  assert.equal(lagging.head, 0);
  assert.equal(seq, 1);
});

test('control entries do not count as events, and are trimmed with the events before them', async (t) => {
  const { db, time, store, wallClock, openLog } = await openStore(t);
  const append = controlEntryAppender(db, wallClock);
  const eventLog = await openLog({ ...unlimitedRetention, ageMaxMs: 10_000, eventsMax: 2 });
  const trim = async () => {
    await eventLog.trim();
    const { trimmedSeq, eventCount } = await store.state();
    const rows = await db.query<{ seq: number }>(sql`select seq from events order by seq`);
    assert.deepEqual(rows[0]?.seq ?? 8, trimmedSeq + 1);
    return { trimmedSeq, eventCount };
  };
  const control = () => db.transaction((tx) => append(tx, [ended('s')]));
  await control();
  await store.append([request(event('2'))]);
  for (let count = 0; count < 4; count += 1) await control();

  assert.deepEqual(await trim(), { trimmedSeq: 0, eventCount: 1 });
  await store.append([request(event('7'))]);
  assert.deepEqual(await trim(), { trimmedSeq: 0, eventCount: 2 });
  await store.append([request(event('8'))]);
  assert.deepEqual(await trim(), { trimmedSeq: 2, eventCount: 2 });
  time.now += 10_001;
  await control();
  assert.deepEqual(await trim(), { trimmedSeq: 8, eventCount: 0 });
});

async function openWithKeys(t: TestContext) {
  const db = await databaseFor(t);
  const wallClock = Date.now;
  const store = await SqlLogStore.open(db, { wallClock, newEpoch: 'e1', keys: publisherKeys });
  const appendControlEntries = controlEntryAppender(db, wallClock);
  const keys = new ApiKeys({ db, log: silentLogger, appendControlEntries });
  const create = async (name: string) => (await keys.create({ name, scopes: ['publish'] })).id;
  return { db, store, keys, one: await create('one'), two: await create('two') };
}

test('when requests share a commit, only those of a revoked API key are rejected', async (t) => {
  const { store, keys, one, two } = await openWithKeys(t);
  const by = (keyId: string, ...events: LoggableEvent[]) => ({ ...request(...events), keyId });
  await store.append([by(one, event('a')), by(two, event('b'))]);
  await store.append([by(one, event('c'))]);

  await keys.revoke('one'); // Number 4.
  const outcomes = await store.append([
    by(two, event('d'), event('e')),
    by(one, event('refused'), event('too')),
    request(event('f')),
    by(two, event('g')),
  ]);
  const alone = await store.append([by(one, event('refused'))]);
  const next = await store.append([by(two, event('h'))]);

  assert.deepEqual([...outcomes, ...alone, ...next].map(outlineOutcome), [
    'appended 5 6',
    'revoked',
    'appended 7',
    'appended 8',
    'revoked',
    'appended 9',
  ]);
  const { eventCount, bytes } = await store.state();
  assert.deepEqual({ eventCount, bytes }, { eventCount: 8, bytes: 8 * smallEventBytes });
  const { events: read } = await store.read(['u:1'], { after: 0, upTo: 10 }, page);
  assert.equal(read.map(({ data }) => data).join(''), 'abcdefgh');
});

test('repeating a request with a revoked API key is rejected despite its idempotency key', async (t) => {
  const { store, keys, one } = await openWithKeys(t);
  const repeated = { ...keyedRequest('k', 'b', event('x')), keyId: one };
  await store.append([repeated]);

  await keys.revoke(one);

  assert.deepEqual((await store.append([repeated])).map(outlineOutcome), ['revoked']);
});

test('revoking an API key takes one sequence number, and a publish snapshot shows the number and the revocation', async (t) => {
  const { store, keys, one, two } = await openWithKeys(t);
  await store.append([request(event('a'))]);
  assert.deepEqual(await store.readPublishSnapshot(one), { seq: 1, isRevoked: false });

  assert.equal(await keys.revoke(one), true);
  assert.equal(await keys.revoke(one), false);

  assert.deepEqual(await store.readPublishSnapshot(one), { seq: 2, isRevoked: true });
  assert.deepEqual(await store.readPublishSnapshot(two), { seq: 2, isRevoked: false });
  assert.deepEqual(await store.readPublishSnapshot(undefined), { seq: 2, isRevoked: false });
  assert.deepEqual((await store.readAll({ after: 1, upTo: 2 }, 1e6)).entries, [
    { seq: 2, control: `{"kind":"key_revoked","keyId":"${one}"}` },
  ]);
});

test('a client can resume from any position up to the head, even if the event there is for others', async (t) => {
  const { openLog } = await openStore(t);
  const eventLog = await openLog();
  await eventLog.append(request(event('1'), event('2', ['u:2']), event('3', ['all'])));
  const start = async (id: string | undefined) => {
    const { seq, resumed, reason } = await resolveStart(eventLog, audiences, id);
    return [seq, resumed, reason];
  };

  assert.deepEqual(await start(undefined), [3, false, 'fresh']);
  assert.deepEqual(await start('e1-1'), [1, true, 'resumed']);
  assert.deepEqual(await start('e1-0'), [0, true, 'resumed']);
  assert.deepEqual(await start('e1-2'), [2, true, 'resumed']);
  assert.deepEqual(await start('e1-4'), [3, false, 'unknown_id']);
  assert.deepEqual(await start('e9-1'), [3, false, 'epoch_changed']);
  assert.deepEqual(await start('nonsense'), [3, false, 'unknown_id']);
});

test('the id of a stream start is the position at which the stream starts', async (t) => {
  const { openLog } = await openStore(t);
  const eventLog = await openLog();
  await eventLog.append(request(event('1'), event('2', ['u:2']), event('3', ['u:2'])));

  assert.equal((await resolveStart(eventLog, audiences)).id, 'e1-3');
  assert.equal((await resolveStart(eventLog, audiences, 'e1-2')).id, 'e1-2');
  assert.equal((await resolveStart(eventLog, audiences, 'e9-2')).id, 'e1-3');
});

test('without a Last-Event-ID, a stream starts where its token begins', async (t) => {
  const { openLog } = await openStore(t);
  const eventLog = await openLog({ ...unlimitedRetention, eventsMax: 1 });
  await eventLog.append(request(event('1'), event('2'), event('3')));

  const start = await resolveStart(eventLog, audiences, undefined, 'e1-1');
  const resumed = await resolveStart(eventLog, audiences, 'e1-2', 'e1-1');
  const replaced = await resolveStart(eventLog, audiences, undefined, 'e0-1');
  await eventLog.trim();
  const trimmed = await resolveStart(eventLog, audiences, undefined, 'e1-1');

  assert.deepEqual(start, { seq: 1, resumed: true, reason: 'fresh', id: 'e1-1' });
  assert.deepEqual(resumed, { seq: 2, resumed: true, reason: 'resumed', id: 'e1-2' });
  assert.deepEqual([replaced.seq, replaced.reason], [3, 'epoch_changed']);
  assert.deepEqual([trimmed.seq, trimmed.reason], [3, 'too_old']);
});

// [limits, number of events kept of ten events of 228 bytes, appended one per second]
const trims = [
  [{ eventsMax: 4 }, 4],
  [{ eventsMax: 10 }, 10],
  [{ eventsMax: 4, ageMinMs: 7000 }, 6],
  [{ eventsMax: 4, ageMinMs: 7001 }, 7],
  [{ ageMaxMs: 8000, ageMinMs: 1e12 }, 8],
  [{ bytesMax: 1000, ageMinMs: 1e12 }, 4],
  [{ bytesMax: 2280 }, 10],
  [{ bytesMax: 2279 }, 9],
  [{ bytesMax: 700 }, 3],
  [{ ageMaxMs: 10_000 }, 10],
  [{ ageMaxMs: 9_999 }, 9],
] as const;

for (const [limit, keptCount] of trims) {
  test(`with ${JSON.stringify(limit)}, ${keptCount} of ten events are kept`, async (t) => {
    const { db, time, store, openLog } = await openStore(t);
    const eventLog = await openLog({ ...unlimitedRetention, ...limit });
    for (let count = 0; count < 10; count += 1) {
      await eventLog.append(request(event('x'.repeat(100))));
      time.now += 1000;
    }

    await eventLog.trim();

    const { trimmedSeq, seq, eventCount, bytes } = await store.state();
    assert.deepEqual(
      { trimmedSeq, seq, eventCount, bytes },
      {
        trimmedSeq: 10 - keptCount,
        seq: 10,
        eventCount: keptCount,
        bytes: keptCount * (100 + 128),
      },
    );
    assert.equal((await db.query(sql`select seq from events`)).length, keptCount);
    assert.equal((await db.query(sql`select seq from event_audiences`)).length, keptCount);
    const reason = trimmedSeq > 1 ? 'too_old' : 'resumed';
    assert.equal((await resolveStart(eventLog, audiences, 'e1-1')).reason, reason);
  });
}

test('a trim batch is smaller when events have many recipients', async (t) => {
  const { store, openLog } = await openStore(t);
  const eventLog = await openLog({ ...unlimitedRetention, eventsMax: 0 });
  const wide = Array.from({ length: 1000 }, (_, index) => `u:${index}`);
  await eventLog.append(request(...Array.from({ length: 7 }, () => event('x', wide)), event('x')));
  const oldest = async (after: number, recipientsMax: number) =>
    (await store.oldestEntries(after, { entriesMax: 3, recipientsMax })).map(({ seq }) => seq);

  assert.deepEqual(await oldest(0, 1), [1]); // At least one.
  assert.deepEqual(await oldest(0, 1999), [1]);
  assert.deepEqual(await oldest(0, 2000), [1, 2]);
  assert.deepEqual(await oldest(0, 1e6), [1, 2, 3]);
  assert.deepEqual(await oldest(6, 1001), [7, 8]);
  assert.deepEqual(await oldest(8, 1000), []);
  assert.deepEqual(
    [await eventLog.trim(), await eventLog.trim(), await eventLog.trim()],
    [5005, 2004, 0],
  );
});

test('when two processes trim at the same time, only one trims, and the byte count stays correct', async (t) => {
  const { db, wallClock, store } = await openStore(t);
  const other = await SqlLogStore.open(db, { wallClock, newEpoch: 'x' });
  await store.append([request(...Array.from({ length: 10 }, () => event('x'.repeat(100))))]);

  const rows = [
    await store.trim({ after: 0, upTo: 5, eventCount: 5, bytes: 5 * 228, now: 0 }),
    await other.trim({ after: 0, upTo: 6, eventCount: 6, bytes: 6 * 228, now: 0 }), // A range computed before the first trim.
  ];

  assert.deepEqual(rows, [10, 0]);
  const { trimmedSeq, bytes } = await other.state();
  assert.deepEqual({ trimmedSeq, bytes }, { trimmedSeq: 5, bytes: 5 * 228 });
  assert.equal((await db.query(sql`select seq from events`)).length, 5);
});

test('expired events are not replayed', async (t) => {
  const { time, openLog } = await openStore(t);
  const eventLog = await openLog();
  await eventLog.append(request(event('expiring', ['u:1'], time.now + 1000), event('stays')));
  const later = await openLog(); // Opened after the events, so nothing is cached.
  const read = async () => (await later.read(audiences, 0, 1e6)).frames.map(({ seq }) => seq);

  assert.deepEqual(await read(), [1, 2]);
  time.now += 1000;
  assert.deepEqual(await read(), [2]);
});

test('a trimmed event that had expired is no loss', async (t) => {
  const { time, openLog } = await openStore(t);
  const eventLog = await openLog({ ...unlimitedRetention, eventsMax: 1 });
  const expiresAt = time.now + 1000;
  await eventLog.append(
    request(event('1', ['u:1'], expiresAt), event('2', ['u:2'], expiresAt + 1)),
  );
  await eventLog.append(request(event('3', ['u:3'])));

  time.now = expiresAt;
  await eventLog.trim(); // Up to 2.

  assert.equal((await resolveStart(eventLog, ['u:1'], 'e1-0')).reason, 'resumed');
  assert.equal((await resolveStart(eventLog, ['u:2'], 'e1-0')).reason, 'too_old');
});

test('a client can resume from a trimmed position if it lost no event, and gets too_old otherwise', async (t) => {
  const { db, openLog } = await openStore(t);
  const eventLog = await openLog({ ...unlimitedRetention, eventsMax: 2 });
  const resolve = async (user: string, seq: number) => {
    const start = await resolveStart(eventLog, [`u:${user}`, 'all'], `e1-${seq}`);
    return [start.reason, start.seq, start.id];
  };
  for (const user of ['1', '2', '1', '2', '2', '2']) {
    await eventLog.append(request({ ...event('x'), audiences: [`u:${user}`] }));
  }

  await eventLog.trim(); // Up to 4.

  assert.deepEqual(await resolve('1', 3), ['resumed', 4, 'e1-4']);
  assert.deepEqual((await resolve('1', 1))[0], 'too_old');
  assert.deepEqual((await resolve('2', 3))[0], 'too_old');
  assert.deepEqual(await resolve('2', 4), ['resumed', 4, 'e1-4']);
  assert.deepEqual(await resolve('9', 0), ['resumed', 4, 'e1-4']);

  for (const audience of ['all', 'u:3', 'u:3']) {
    await eventLog.append(request({ ...event('x'), audiences: [audience] }));
  }
  await eventLog.trim(); // Up to 7, including one for all.

  assert.deepEqual((await resolve('1', 3))[0], 'too_old');
  assert.deepEqual((await resolve('9', 6))[0], 'too_old');
  assert.deepEqual((await resolve('9', 7))[0], 'resumed');
  await db.execute(sql`insert into trimmed_audiences (bucket, seq) values (-1, 7)`);
  assert.deepEqual((await resolve('9', 6))[0], 'too_old', 'trimmed before the table existed');
});

/**
 * Statements that replace the event log, and the head expected afterwards. If the counter went back, a new
 * epoch is started, because sequence numbers would be used again.
 */
const replacements = {
  'another epoch': { replace: sql`update log_head set epoch = 'e2'`, epoch: 'e2', seq: 3 },
  'another epoch and a higher counter': {
    replace: sql`update log_head set epoch = 'e2', seq = 9`,
    ...{ epoch: 'e2', seq: 9 },
  },
  'a lower counter': { replace: sql`update log_head set seq = 1`, epoch: 'e1r', seq: 1 },
};

for (const [what, { replace, epoch, seq }] of Object.entries(replacements)) {
  test(`after the event log was replaced with ${what}, a running process rejects reads and appends`, async (t) => {
    const db = await databaseFor(t);
    let replacedCalls = 0;
    const onReplaced = () => {
      replacedCalls += 1;
    };
    const store = await SqlLogStore.open(db, { wallClock: Date.now, newEpoch: 'e1', onReplaced });
    await store.append([request(event('a'), event('b')), keyedRequest('k', 'b', event('c'))]);
    await db.execute(replace);

    await assert.rejects(store.append([request(event('d'))]), isUnavailable);
    await assert.rejects(store.append([keyedRequest('k', 'b', event('c'))]), isUnavailable);
    await assert.rejects(store.state(), isUnavailable);

    await until(() => replacedCalls > 0);
    const [head] = await db.query(sql`select epoch, seq from log_head`);
    assert.equal(replacedCalls, 1);
    assert.deepEqual({ ...head }, { epoch, seq });
    assert.equal((await db.query(sql`select seq from events`)).length, 3);
  });
}

test('one wrong reading of the head is rejected, and the event log goes on unchanged', async (t) => {
  const db = await databaseFor(t);
  let wrongReadings = 0;
  let headReadings = 0;
  const unreliableDb: Database = {
    dialect: db.dialect,
    async query<Row extends object>(statement: Sql) {
      const rows = await db.query<Row>(statement);
      if (!statement.texts.join('').includes('from log_head')) return rows;
      headReadings += 1;
      if (wrongReadings === 0) return rows;
      wrongReadings -= 1;
      return rows.map((row) => ({ ...row, epoch: 'of another statement' }));
    },
    execute: (statement) => db.execute(statement),
    transaction: (work) => db.transaction(work),
    close: () => db.close(),
  };
  let isReplaced = false;
  const onReplaced = () => {
    isReplaced = true;
  };
  const options = { wallClock: Date.now, newEpoch: 'e1', onReplaced };
  const store = await SqlLogStore.open(unreliableDb, options);
  await store.append([request(event('a'))]);

  wrongReadings = 3; // The statement itself, and two of the readings that would confirm it.
  headReadings = 0;
  await assert.rejects(store.state(), isUnavailable);
  await until(() => headReadings === 4);

  assert.equal((await store.state()).epoch, 'e1');
  assert.deepEqual((await store.append([request(event('b'))])).map(outlineOutcome), ['appended 2']);
  assert.equal(isReplaced, false);
});

test('appends and reads fail with service_unavailable while the head row is missing', async (t) => {
  const { db, store } = await openStore(t);
  await store.append([request(event('a'))]);
  await db.execute(sql`delete from log_head`);

  await assert.rejects(store.append([request(event('b'))]), isUnavailable);
  await assert.rejects(store.state(), isUnavailable);
  await db.execute(
    sql`insert into log_head (id, epoch, seq, trimmed_seq, bytes) values (1, 'e1', 1, 0, 1)`,
  );

  assert.deepEqual((await store.append([request(event('b'))])).map(outlineOutcome), ['appended 2']);
});

function isUnavailable(error: unknown): boolean {
  return error instanceof Failure && error.name === 'service_unavailable';
}
