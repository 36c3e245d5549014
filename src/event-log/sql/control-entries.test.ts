import assert from 'node:assert/strict';
import { testOnDialects } from '../../../test/support/databases/dialects.js';
import {
  ended,
  event,
  keyedEvent,
  openStore,
  page,
  request,
  smallEventBytes,
} from '../../../test/support/databases/event-store.js';
import { outlineOutcome } from '../../../test/support/outline-outcome.js';
import { toReader } from '../../../test/support/to-reader.js';
import { unlimitedRetention } from '../../../test/support/unlimited-retention.js';
import { sql } from '../../db/database.js';
import { controlEntryAppender } from '../open.js';
import { SqlLogStore } from './sql-log-store.js';

const test = await testOnDialects('control entries in the event log');

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
  const { seq, eventCount, bytes } = await store.readState();
  assert.deepEqual(
    { seq, eventCount, bytes },
    { seq: 4, eventCount: 2, bytes: 2 * smallEventBytes },
  );
  const all = { after: 0, upTo: 10 };
  const read = await store.read(toReader(['all', 'u:1', 's:s1']), all, page);
  assert.deepEqual(
    read.events.map((found) => found.seq),
    [1, 4],
  );
});

test('a read of a range ends with the entry that reaches the byte limit, control entries included', async (t) => {
  const { db, store, wallClock } = await openStore(t);
  const userIds = Array.from({ length: 200 }, (_, index) => 'u'.repeat(250) + String(index));
  const added = { kind: 'members_added', members: { topic: 'a', userIds } } as const;
  const bytes = Buffer.byteLength(JSON.stringify(added));
  await db.transaction((tx) => controlEntryAppender(db, wallClock)(tx, [added, added, added]));
  await store.append([request(event('a'))]);
  const read = async (bytesMax: number) => {
    const { entries, upTo } = await store.readAll({ after: 0, upTo: 4 }, bytesMax);
    return [entries.map(({ seq }) => seq), upTo];
  };

  assert.deepEqual(await read(bytes), [[1], 1]);
  assert.deepEqual(await read(bytes + 1), [[1, 2], 2]);
  assert.deepEqual(await read(3 * bytes), [[1, 2, 3], 3]);
  assert.deepEqual(await read(3 * bytes + 1), [[1, 2, 3, 4], 4]);
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
    applyControl(entry, seq) {
      received.push([seq, entry]);
    },
    handleGap: () => received.push('gap'),
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
  const { frames, endSeq } = await eventLog.read(toReader(['u:1']), 0, 1e6);
  assert.deepEqual(
    frames.map((frame) => frame.seq),
    [1, 3, 4],
  );
  assert.equal(endSeq, 5);
  assert.equal((await store.readState()).seq, 5);
});

test('a volatile event is delivered after the entries that other processes appended before it', async (t) => {
  const { db, wallClock, openLog } = await openStore(t);
  const lagging = await openLog();
  const delivered: unknown[] = [];
  lagging.subscribe({
    deliver: ({ data }) => delivered.push(data),
    deliverVolatile: ({ data }) => delivered.push(data),
    applyControl(entry) {
      delivered.push(entry);
    },
    handleGap: () => delivered.push('gap'),
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

test('volatile events beside repeated events are delivered after the entries that other processes appended', async (t) => {
  const { db, wallClock, openLog } = await openStore(t);
  const lagging = await openLog();
  const delivered: unknown[] = [];
  lagging.subscribe({
    deliver: ({ data }) => delivered.push(data),
    deliverVolatile: ({ data }, _, stamp) => delivered.push([data, stamp]),
    applyControl(entry) {
      delivered.push(entry);
    },
    handleGap: () => delivered.push('gap'),
  });
  const events = [
    { ...keyedEvent('key', 'logged'), volatile: false },
    { ...event('volatile'), volatile: true },
  ];
  const first = await lagging.publish(events, undefined);
  await db.transaction((tx) => controlEntryAppender(db, wallClock)(tx, [ended('s1')]));

  const repeated = await lagging.publish(events, undefined);

  assert.deepEqual(repeated, first);
  assert.deepEqual(delivered, ['logged', ['volatile', 1], ended('s1'), ['volatile', 2]]);
});

test('a lagging process replays only events up to the last entry that it has applied', async (t) => {
  const { db, wallClock, openLog } = await openStore(t);
  const before = await openLog();
  await before.append(request(event('1')));
  const lagging = await openLog(); // Has nothing in memory, so it reads the store.
  await db.transaction((tx) => controlEntryAppender(db, wallClock)(tx, [ended('s1')]));
  await before.append(request(event('3')));

  const page = await lagging.read(toReader(['u:1']), 0, 1e6);

  assert.deepEqual(
    page.frames.map(({ seq }) => seq),
    [1],
  );
  assert.deepEqual([page.endSeq, page.hasMore], [1, false]);
  await lagging.catchUp();
  assert.deepEqual(
    (await lagging.read(toReader(['u:1']), page.endSeq, 1e6)).frames.map(({ seq }) => seq),
    [3],
  );
});

test('control entries do not count as events, and are trimmed with the events before them', async (t) => {
  const { db, time, store, wallClock, openLog } = await openStore(t);
  const append = controlEntryAppender(db, wallClock);
  const eventLog = await openLog({ ...unlimitedRetention, ageMaxMs: 10_000, eventsMax: 2 });
  const trim = async () => {
    await eventLog.trim();
    const { trimmedSeq, eventCount } = await store.readState();
    const rows = await db.query<{ seq: number }>(sql`select seq from events order by seq`);
    assert.deepEqual(rows[0]?.seq ?? 8, trimmedSeq + 1);
    return { trimmedSeq, eventCount };
  };
  const appendControl = () => db.transaction((tx) => append(tx, [ended('s')]));
  await appendControl();
  await store.append([request(event('2'))]);
  for (let count = 0; count < 4; count += 1) await appendControl();

  assert.deepEqual(await trim(), { trimmedSeq: 0, eventCount: 1 });
  await store.append([request(event('7'))]);
  assert.deepEqual(await trim(), { trimmedSeq: 0, eventCount: 2 });
  await store.append([request(event('8'))]);
  assert.deepEqual(await trim(), { trimmedSeq: 2, eventCount: 2 });
  time.now += 10_001;
  await appendControl();
  assert.deepEqual(await trim(), { trimmedSeq: 8, eventCount: 0 });
});
