import assert from 'node:assert/strict';
import { testOnDialects } from '../../../test/support/databases/dialects.js';
import {
  audiences,
  event,
  openStore,
  page,
  request,
  smallEventBytes,
} from '../../../test/support/databases/event-store.js';
import { withStatementLog } from '../../../test/support/recording/statement-hooks.js';
import { toReader } from '../../../test/support/to-reader.js';
import { unlimitedRetention } from '../../../test/support/unlimited-retention.js';
import type { Database, Sql } from '../../db/database.js';
import { silentLogger } from '../../logging/logger.js';
import { EventLog } from '../event-log.js';
import { storedBytesMax } from '../stored-size.js';
import { SqlLogStore } from './sql-log-store.js';

const test = await testOnDialects('reads of the event log');

test('a reader receives only events for its audiences, in order, page by page', async (t) => {
  const { store } = await openStore(t);
  const recipients = [['u:1'], ['all'], ['u:2'], ['s:x'], ['u:1', 'u:2'], ['s:y'], ['all']];
  await store.append([request(...recipients.map((to, index) => event(String(index + 1), to)))]);
  const seqs = async (after: number, limit: number) =>
    (
      await store.read(
        toReader(audiences),
        { after, upTo: 1e6 },
        { eventsMax: limit, bytesMax: 1000 },
      )
    ).events.map(({ seq }) => seq);

  assert.deepEqual(await seqs(0, 100), [1, 2, 4, 5, 7]);
  assert.deepEqual(await seqs(0, 2), [1, 2]);
  assert.deepEqual(await seqs(2, 2), [4, 5]);
  assert.deepEqual(await seqs(7, 2), []);
});

test('an event has the same bytes when it is delivered, read from the store and delivered by another process', async (t) => {
  const { openLog } = await openStore(t);
  const [eventLog, other] = [await openLog(), await openLog()];
  const delivered: string[] = [];
  const deliver = (_: unknown, { bytes }: { bytes: Buffer }) => delivered.push(String(bytes));
  const subscriber = { deliver, deliverVolatile: deliver, applyControl() {}, handleGap() {} };
  for (const each of [eventLog, other]) each.subscribe(subscriber);
  const topic = `Orders:${'x'.repeat(121)}`;
  const inTopic = { ...event('in a topic', [`t:${topic}`]), topic };
  const volatile = { ...inTopic, data: 'volatile', volatile: true };

  await eventLog.append(request(inTopic, event('for a user and a topic', ['u:1', `t:${topic}`])));
  await other.catchUp();
  const replayed = await (await openLog()).read(toReader(['u:1', `t:${topic}`]), 0, 1e6);
  await eventLog.publish([volatile], undefined);

  const bytes = [
    `event: note\ntopic: ${topic}\ndata: in a topic\nid: e1-1\n\n`,
    'event: note\ndata: for a user and a topic\nid: e1-2\n\n',
  ];
  assert.deepEqual(delivered, [
    ...bytes,
    ...bytes,
    `event: note\ntopic: ${topic}\ndata: volatile\n\n`,
  ]);
  assert.deepEqual(
    replayed.frames.map((frame) => String(frame.bytes)),
    bytes,
  );
});

test('large and small events are read in order and unchanged', async (t) => {
  const { store } = await openStore(t);
  const written = ['small', 'l'.repeat(21), '', 's'.repeat(20), 'L'.repeat(90), 'out'];
  await store.append([request(...written.map((data) => event(data)))]);

  const { events, hasMore } = await store.read(
    toReader(['u:1']),
    { after: 0, upTo: 1e6 },
    { eventsMax: 10, bytesMax: 100 },
  );

  assert.deepEqual(
    events.map(({ seq, type, data }) => [seq, type, data]),
    written.slice(0, 5).map((data, index) => [index + 1, 'note', data]),
  );
  assert.equal(hasMore, true);
});

test('a page ends with the event that reaches the byte limit, and has at least one', async (t) => {
  const { store } = await openStore(t);
  const sizes = [10, 10, 30, 10, 100, 10, 10];
  await store.append([request(...sizes.map((size) => event('é'.repeat(size / 2))))]);
  const read = async (after: number, bytesMax: number, eventsMax = 100) => {
    const { events, hasMore } = await store.read(
      toReader(['u:1']),
      { after, upTo: 1e6 },
      { eventsMax, bytesMax },
    );
    return { seqs: events.map(({ seq }) => seq), hasMore };
  };

  assert.deepEqual(await read(0, 20), { seqs: [1, 2], hasMore: true });
  assert.deepEqual(await read(0, 21), { seqs: [1, 2, 3], hasMore: true });
  assert.deepEqual(await read(4, 1), { seqs: [5], hasMore: true });
  assert.deepEqual(await read(5, 20), { seqs: [6, 7], hasMore: false });
  assert.deepEqual(await read(5, 10), { seqs: [6], hasMore: true });
  assert.deepEqual(await read(0, 1e6), { seqs: [1, 2, 3, 4, 5, 6, 7], hasMore: false });
  assert.deepEqual(await read(0, 1e6, 3), { seqs: [1, 2, 3], hasMore: true });
  assert.deepEqual(await read(7, 20), { seqs: [], hasMore: false });
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
    (await store.readState()).bytes,
    sizes.reduce((sum, size) => sum + size),
  );
});

test('a range that fits even if its entries have the maximum size is read without a query for its end', async (t) => {
  const { db, wallClock, store } = await openStore(t);
  const statements: string[] = [];
  const counted = await SqlLogStore.open(withStatementLog(db, statements), {
    ...{ wallClock, newEpoch: 'x' },
  });
  await store.append([request(...Array.from({ length: 27 }, (_, index) => event(`${index}`)))]);
  const read = async (upTo: number, bytesMax: number) => {
    statements.length = 0;
    const { entries } = await counted.readAll({ after: 1, upTo }, bytesMax);
    return [entries.length, statements.length];
  };

  assert.deepEqual(await read(26, 25 * storedBytesMax), [25, 2]);
  assert.deepEqual(await read(26, 25 * storedBytesMax - 1), [25, 3]);
  assert.deepEqual(await read(27, 25 * storedBytesMax), [26, 3]);
  assert.deepEqual(await read(20, 16 * 1024 * 1024), [19, 2]); // The limit of `EventLog`.
  assert.deepEqual(await read(21, 16 * 1024 * 1024), [20, 3]);
});

test('a page contains the number up to which the event log was trimmed when the page was read', async (t) => {
  const { store } = await openStore(t);
  await store.append([request(event('a'), event('b', ['u:2']), event('c'))]);
  const read = (reader: string) => store.read(toReader([reader]), { after: 0, upTo: 3 }, page);

  assert.equal((await read('u:1')).trimmedSeq, 0);
  await store.trim({ after: 0, upTo: 2, eventCount: 2, bytes: 2 * smallEventBytes, now: 0 });

  const kept = await read('u:1');
  assert.deepEqual([kept.events.map(({ seq }) => seq), kept.trimmedSeq], [[3], 2]);
  assert.deepEqual(await read('u:2'), {
    ...{ events: [], endSeq: 3, hasMore: false, trimmedSeq: 2, topicsBySeq: undefined },
  });
});

test('a read reports a gap only if a trimmed event was for the reader', async (t) => {
  const { store, openLog } = await openStore(t);
  const eventLog = await openLog();
  await eventLog.append(request(event('a'), event('b', ['u:2']), event('c', ['u:3'])));
  const later = await openLog(); // Opened after the events, so nothing is cached.

  await store.trim({ after: 0, upTo: 2, eventCount: 2, bytes: 2 * smallEventBytes, now: 0 });

  const hasGap = async (reader: string, after: number) =>
    (await later.read(toReader([reader]), after, 1e6)).hasGap;
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
    handleGap: () => delivered.push('gap'),
  });
  const expiresAt = time.now + 1000;
  await eventLog.append(request(event('1'), event('expires', ['u:1'], expiresAt), event('3')));

  time.now = expiresAt;
  await behind.catchUp();

  assert.deepEqual(delivered, ['1', '3']);
  assert.equal(behind.head, 3);
  const { frames } = await behind.read(toReader(audiences), 0, 1e6);
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
    handleGap: () => delivered.push('gap'),
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
    (await store.read(toReader(['u:1']), { after: 0, upTo: 1e6 }, page)).events.map(
      (found) => found.data,
    ),
    data,
  );
});

test('expired events are not replayed', async (t) => {
  const { time, openLog } = await openStore(t);
  const eventLog = await openLog();
  await eventLog.append(request(event('expiring', ['u:1'], time.now + 1000), event('stays')));
  const later = await openLog(); // Opened after the events, so nothing is cached.
  const read = async () =>
    (await later.read(toReader(audiences), 0, 1e6)).frames.map(({ seq }) => seq);

  assert.deepEqual(await read(), [1, 2]);
  time.now += 1000;
  assert.deepEqual(await read(), [2]);
});
