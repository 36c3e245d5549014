import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { testOnDialects } from '../../../test/support/databases/dialects.js';
import { databaseFor } from '../../../test/support/databases/embedded.js';
import { until } from '../../../test/support/until.js';
import { type Database, type Sql, sql } from '../../db/database.js';
import { Failure } from '../../errors.js';
import { silentLog } from '../../logging/log.js';
import { EventLog } from '../event-log.js';
import type { LoggableEvent } from '../log-store.js';
import { TableLog } from './sql-log-store.js';

const test = await testOnDialects('the event log');

const event = (data: string, audiences = ['u:1'], expiresAt?: number): LoggableEvent => ({
  audiences,
  type: 'note',
  data,
  expiresAt,
});
const request = (...events: LoggableEvent[]) => ({ events, idempotency: undefined });
const keyed = (key: string, body: string, ...events: LoggableEvent[]) => ({
  events,
  idempotency: { keyHash: key.padEnd(64, '0'), bodyHash: body.padEnd(64, '0') },
});

const page = { eventsMax: 100, bytesMax: 1000 };

async function openTables(t: TestContext) {
  const db = await databaseFor(t);
  const time = { now: 1_800_000_000_000 };
  const clock = () => time.now;
  const store = await TableLog.open(db, { clock, newEpoch: 'e1' });
  const openLog = (limits = { ageMaxMs: 1e12, eventsMax: 1e9, bytesMax: 1e12 }) =>
    EventLog.open({ store, log: silentLog, clock, limits });
  return { db, time, clock, store, openLog };
}

test('numbers begin at 1 and have no gaps, over requests and reopening', async (t) => {
  const { db, clock, store } = await openTables(t);

  const first = await store.append([request(event('a'), event('b')), request(event('c'))]);
  const again = await TableLog.open(db, { clock, newEpoch: 'other' });
  const second = await again.append([request(event('d'))]);

  assert.deepEqual(
    [...first, ...second].map((outcome) => outcome.firstSeq),
    [1, 3, 4],
  );
  const { epoch, seq, bytes } = await again.state();
  assert.deepEqual({ epoch, seq, bytes }, { epoch: 'e1', seq: 4, bytes: 4 });
});

test('a reader gets what is for it, in order, a page at a time', async (t) => {
  const { store } = await openTables(t);
  const audiences = [['u:1'], ['all'], ['u:2'], ['s:x'], ['u:1', 'u:2'], ['s:y'], ['all']];
  await store.append([
    request(...audiences.map((words, index) => event(String(index + 1), words))),
  ]);
  const words = ['all', 'u:1', 's:x'];
  const seqs = async (after: number, limit: number) =>
    (await store.read(words, after, { eventsMax: limit, bytesMax: 1000 })).events.map(
      ({ seq }) => seq,
    );

  assert.deepEqual(await seqs(0, 100), [1, 2, 4, 5, 7]);
  assert.deepEqual(await seqs(0, 2), [1, 2]);
  assert.deepEqual(await seqs(2, 2), [4, 5]);
  assert.deepEqual(await seqs(7, 2), []);
  assert.equal((await store.stateFor(words, 4)).isVisible, true);
  assert.equal((await store.stateFor(words, 6)).isVisible, false);
  assert.equal(await store.lastVisible(words, 6), 5);
  assert.equal(await store.lastVisible(['u:9'], 6), undefined);
});

test('what is large and what is small come in order, each as it was written', async (t) => {
  const { store } = await openTables(t);
  const written = ['small', 'l'.repeat(21), '', 's'.repeat(20), 'L'.repeat(90), 'out'];
  await store.append([request(...written.map((data) => event(data)))]);

  const { events, more } = await store.read(['u:1'], 0, { eventsMax: 10, bytesMax: 100 });

  assert.deepEqual(
    events.map(({ seq, type, data }) => [seq, type, data]),
    written.slice(0, 5).map((data, index) => [index + 1, 'note', data]),
  );
  assert.equal(more, true);
});

test('a page holds as many bytes as it may, and one event at least', async (t) => {
  const { store } = await openTables(t);
  const sizes = [10, 10, 30, 10, 100, 10, 10];
  await store.append([request(...sizes.map((size) => event('é'.repeat(size / 2))))]);
  const read = async (after: number, bytesMax: number, eventsMax = 100) => {
    const { events, more } = await store.read(['u:1'], after, { eventsMax, bytesMax });
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

test('everything after a position comes with its audiences', async (t) => {
  const { store } = await openTables(t);
  await store.append([request(event('a'), event('b', ['u:1', 'u:2']), event('c'))]);

  const events = await store.readAll(1, 2);

  assert.deepEqual(events, [
    { seq: 2, audiences: ['u:1', 'u:2'], type: 'note', data: 'b', expiresAt: undefined },
  ]);
});

test('what is trimmed while it is read is a gap, not events for nobody', async (t) => {
  const { db, clock, store } = await openTables(t);
  let beforeNext = async () => {};
  const hurried: Database = {
    dialect: db.dialect,
    async query<Row extends object>(statement: Sql) {
      const rows = await db.query<Row>(statement);
      if (statement.texts.join('').includes('seq <=')) await beforeNext();
      return rows;
    },
    execute: (statement) => db.execute(statement),
    transaction: (work) => db.transaction(work),
    close: () => db.close(),
  };
  const log = await EventLog.open({
    store: await TableLog.open(hurried, { clock, newEpoch: 'x' }),
    ...{ log: silentLog, clock, limits: { ageMaxMs: 1e12, eventsMax: 1e9, bytesMax: 1e12 } },
  });
  const heard: unknown[] = [];
  log.subscribe({
    deliver: ({ audiences }) => heard.push(audiences),
    deliverVolatile() {},
    gap: () => heard.push('gap'),
  });
  await store.append([request(event('a'), event('b'))]);
  beforeNext = async () => void (await store.trim({ after: 0, upTo: 2, bytes: 2 }));

  await log.catchUp();

  assert.deepEqual(heard, ['gap']);
  assert.equal(log.head, 2);
});

test('odd data comes back as it went in', async (t) => {
  const { store } = await openTables(t);
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
    (await store.read(['u:1'], 0, page)).events.map((found) => found.data),
    data,
  );
});

test('an idempotency key answers the same numbers for a day, for the same body only', async (t) => {
  const { time, store } = await openTables(t);
  const append = async (...parts: Parameters<typeof keyed>) =>
    (await store.append([keyed(...parts)]))[0];

  assert.deepEqual(await append('k', 'b', event('1')), { kind: 'appended', firstSeq: 1 });
  assert.deepEqual(await append('k', 'b', event('1')), { kind: 'repeated', firstSeq: 1 });
  assert.deepEqual(await append('k', 'c', event('2')), { kind: 'conflict', firstSeq: 1 });
  assert.deepEqual(await append('l', 'c', event('2')), { kind: 'appended', firstSeq: 2 });
  time.now += 24 * 60 * 60 * 1000;
  assert.deepEqual(await append('k', 'c', event('3')), { kind: 'appended', firstSeq: 3 });
});

test('of requests with one key that are under way together, one appends and all get its numbers', async (t) => {
  const { store } = await openTables(t);
  const together = (key: string) =>
    Promise.all([1, 2, 3].map(() => store.append([keyed(key, 'b', event('1'))])));

  for (let round = 1; round <= 10; round += 1) {
    const outcomes = (await together(`k${round}-`)).flat();

    assert.deepEqual(outcomes.map(({ kind }) => kind).sort(), ['appended', 'repeated', 'repeated']);
    assert.deepEqual([...new Set(outcomes.map(({ firstSeq }) => firstSeq))], [round]);
  }
});

test('spent idempotency keys are swept away', async (t) => {
  const { db, time, store } = await openTables(t);
  await store.append([keyed('k', 'b', event('1'))]);
  const rows = () => db.query(sql`select key_hash from idempotency`);

  assert.equal(await store.sweepIdempotencyKeys(time.now), 0);
  assert.equal((await rows()).length, 1);
  assert.equal(await store.sweepIdempotencyKeys(time.now + 24 * 60 * 60 * 1000), 1);
  assert.equal((await rows()).length, 0);
});

test('publishes that arrive together are numbered as they came, and all are delivered in order', async (t) => {
  const { openLog } = await openTables(t);
  const log = await openLog();
  const heard: number[] = [];
  log.subscribe({ deliver: (_, { seq }) => heard.push(seq), deliverVolatile() {}, gap() {} });

  const appended = await Promise.all(
    Array.from({ length: 300 }, (_, index) => log.append(request(event(String(index))))),
  );

  const numbers = Array.from({ length: 300 }, (_, index) => index + 1);
  assert.deepEqual(
    appended.flatMap(({ ids }) => ids),
    numbers.map((seq) => `e1-${seq}`),
  );
  assert.deepEqual(heard, numbers);
});

test('two publishes with the same key at once are written once', async (t) => {
  const { openLog } = await openTables(t);
  const log = await openLog();

  const both = await Promise.all([
    log.append(keyed('k', 'b', event('x'))),
    log.append(keyed('k', 'b', event('x'))),
  ]);

  assert.deepEqual(both, [
    { ids: ['e1-1'], isRepeated: false },
    { ids: ['e1-1'], isRepeated: true },
  ]);
  assert.equal(log.head, 1);
});

test('the same key with another body is a conflict, and nothing is written', async (t) => {
  const { openLog } = await openTables(t);
  const log = await openLog();
  await log.append(keyed('k', 'b', event('x')));

  await assert.rejects(log.append(keyed('k', 'other', event('y'))), (error) => {
    assert.ok(error instanceof Failure);
    return error.name === 'conflict';
  });
  assert.equal(log.head, 1);
});

test('of requests that share a commit, only the one that cannot be written fails', async (t) => {
  const { openLog } = await openTables(t);
  const log = await openLog();
  const heard: string[] = [];
  log.subscribe({ deliver: ({ data }) => heard.push(data), deliverVolatile() {}, gap() {} });
  const bad = { ...event('bad'), audiences: ['u:1', 'u:1'] }; // Breaks a primary key.

  const outcomes = await Promise.allSettled(
    [event('a'), event('b'), bad, event('c')].map((item) => log.append(request(item))),
  );

  const statuses = outcomes.map(({ status }) => status);
  assert.deepEqual(statuses, ['fulfilled', 'fulfilled', 'rejected', 'fulfilled']);
  assert.deepEqual(heard, ['a', 'b', 'c']);
  assert.deepEqual(outcomes.at(-1), {
    status: 'fulfilled',
    value: { ids: ['e1-3'], isRepeated: false },
  });
});

test('what another process writes is delivered in order with what is ours', async (t) => {
  const { db, clock, openLog } = await openTables(t);
  const log = await openLog();
  const other = await TableLog.open(db, { clock, newEpoch: 'x' });
  const heard: string[] = [];
  log.subscribe({ deliver: ({ data }) => heard.push(data), deliverVolatile() {}, gap() {} });

  await other.append([request(event('theirs 1'))]);
  await log.append(request(event('ours')));
  await other.append([request(event('theirs 2'))]);
  await log.catchUp();

  assert.deepEqual(heard, ['theirs 1', 'ours', 'theirs 2']);
});

const words = ['all', 'u:1', 's:x'];

test('a position is good for whom its event was for', async (t) => {
  const { openLog } = await openTables(t);
  const log = await openLog();
  await log.append(request(event('1'), event('2', ['u:2']), event('3', ['all'])));
  const start = async (id: string | undefined) => {
    const { seq, resumed, reason } = await log.startFor(words, id);
    return [seq, resumed, reason];
  };

  assert.deepEqual(await start(undefined), [3, false, 'fresh']);
  assert.deepEqual(await start('e1-1'), [1, true, 'resumed']);
  assert.deepEqual(await start('e1-0'), [0, true, 'resumed']);
  assert.deepEqual(await start('e1-2'), [3, false, 'unknown_id']);
  assert.deepEqual(await start('e1-4'), [3, false, 'unknown_id']);
  assert.deepEqual(await start('e9-1'), [3, false, 'epoch_changed']);
  assert.deepEqual(await start('nonsense'), [3, false, 'unknown_id']);
});

test('the id a stream starts with is one its reader may come back with', async (t) => {
  const { openLog } = await openTables(t);
  const log = await openLog();
  await log.append(request(event('1'), event('2', ['u:2']), event('3', ['u:2'])));

  const { id } = await log.startFor(words, undefined);

  assert.equal(id, 'e1-1');
  assert.equal((await log.startFor(words, id)).resumed, true);
  const nobody = await log.startFor(['u:9'], undefined);
  assert.equal((await log.startFor(['u:9'], nobody.id)).resumed, true);
});

// [the limit, how many of ten events of 100 bytes, one a second, are left]
const trims = [
  [{ eventsMax: 4 }, 4],
  [{ eventsMax: 10 }, 10],
  [{ bytesMax: 1000 }, 10],
  [{ bytesMax: 999 }, 9],
  [{ bytesMax: 350 }, 3],
  [{ ageMaxMs: 10_000 }, 10],
  [{ ageMaxMs: 9_999 }, 9],
] as const;

for (const [limit, left] of trims) {
  test(`with ${JSON.stringify(limit)}, ${left} of ten events are kept`, async (t) => {
    const { db, time, store, openLog } = await openTables(t);
    const log = await openLog({ ageMaxMs: 1e12, eventsMax: 1e9, bytesMax: 1e12, ...limit });
    for (let count = 0; count < 10; count += 1) {
      await log.append(request(event('x'.repeat(100))));
      time.now += 1000;
    }

    await log.trim();

    const { trimmedSeq, seq, bytes } = await store.state();
    assert.deepEqual(
      { trimmedSeq, seq, bytes },
      { trimmedSeq: 10 - left, seq: 10, bytes: left * 100 },
    );
    assert.equal((await db.query(sql`select seq from events`)).length, left);
    assert.equal((await db.query(sql`select seq from event_audiences`)).length, left);
    const reason = trimmedSeq > 1 ? 'too_old' : 'resumed';
    assert.equal((await log.startFor(words, 'e1-1')).reason, reason);
  });
}

test('a batch of trimming is small when events have many addresses', async (t) => {
  const { store, openLog } = await openTables(t);
  const log = await openLog({ ageMaxMs: 1e12, eventsMax: 0, bytesMax: 1e12 });
  const wide = Array.from({ length: 1000 }, (_, index) => `u:${index}`);
  await log.append(request(...Array.from({ length: 7 }, () => event('x', wide)), event('x')));
  const oldest = async (after: number, addressesMax: number) =>
    (await store.oldest(after, { eventsMax: 3, addressesMax })).map(({ seq }) => seq);

  assert.deepEqual(await oldest(0, 1), [1]); // One at least.
  assert.deepEqual(await oldest(0, 1999), [1]);
  assert.deepEqual(await oldest(0, 2000), [1, 2]);
  assert.deepEqual(await oldest(0, 1e6), [1, 2, 3]);
  assert.deepEqual(await oldest(6, 1001), [7, 8]);
  assert.deepEqual(await oldest(8, 1000), []);
  assert.deepEqual([await log.trim(), await log.trim(), await log.trim()], [5005, 2004, 0]);
});

test('of two processes that trim at once, one does, and the bytes stay right', async (t) => {
  const { db, clock, store } = await openTables(t);
  const other = await TableLog.open(db, { clock, newEpoch: 'x' });
  await store.append([request(...Array.from({ length: 10 }, () => event('x'.repeat(100))))]);

  const rows = [
    await store.trim({ after: 0, upTo: 5, bytes: 500 }),
    await other.trim({ after: 0, upTo: 6, bytes: 600 }), // It had looked before, too.
  ];

  assert.deepEqual(rows, [10, 0]);
  const { trimmedSeq, bytes } = await other.state();
  assert.deepEqual({ trimmedSeq, bytes }, { trimmedSeq: 5, bytes: 500 });
  assert.equal((await db.query(sql`select seq from events`)).length, 5);
});

test('what has expired is not read again', async (t) => {
  const { time, openLog } = await openTables(t);
  const log = await openLog();
  await log.append(request(event('soon gone', ['u:1'], time.now + 1000), event('stays')));
  const later = await openLog(); // Nothing in memory.
  const read = async () => (await later.read(words, 0, 1e6)).frames.map(({ seq }) => seq);

  assert.deepEqual(await read(), [1, 2]);
  time.now += 1000;
  assert.deepEqual(await read(), [2]);
});

test('who missed nothing of what was trimmed is told so, in all else a loss', async (t) => {
  const { db, openLog } = await openTables(t);
  const log = await openLog({ ageMaxMs: 1e12, eventsMax: 2, bytesMax: 1e12 });
  const startOf = async (user: string, seq: number) => {
    const { reason, seq: from, id } = await log.startFor([`u:${user}`, 'all'], `e1-${seq}`);
    return [reason, from, id];
  };
  for (const user of ['1', '2', '1', '2', '2', '2']) {
    await log.append(request({ ...event('x'), audiences: [`u:${user}`] }));
  }

  await log.trim(); // Up to 4.

  assert.deepEqual(await startOf('1', 3), ['resumed', 4, 'e1-3']);
  assert.deepEqual((await startOf('1', 1))[0], 'too_old');
  assert.deepEqual((await startOf('2', 3))[0], 'too_old');
  assert.deepEqual(await startOf('2', 4), ['resumed', 4, 'e1-4']);
  assert.deepEqual(await startOf('9', 0), ['resumed', 4, 'e1-0']);
  assert.deepEqual((await log.startFrom(['u:1', 'all'], 'e1-3')).resumed, true);
  assert.deepEqual((await log.startFrom(['u:1', 'all'], 'e1-2')).reason, 'too_old');

  for (const audience of ['all', 'u:3', 'u:3']) {
    await log.append(request({ ...event('x'), audiences: [audience] }));
  }
  await log.trim(); // Up to 7, with one for everybody.

  assert.deepEqual((await startOf('1', 3))[0], 'too_old');
  assert.deepEqual((await startOf('9', 6))[0], 'too_old');
  assert.deepEqual((await startOf('9', 7))[0], 'resumed');
  await db.execute(sql`insert into trimmed_audiences (bucket, seq) values (-1, 7)`);
  assert.deepEqual((await startOf('9', 6))[0], 'too_old', 'before the table was kept');
});

/** And what the head is after that: numbers that were given before are of another epoch. */
const replacements = {
  'another epoch': { replace: sql`update log_head set epoch = 'e2'`, epoch: 'e2', seq: 3 },
  'another epoch, further on': {
    replace: sql`update log_head set epoch = 'e2', seq = 9`,
    ...{ epoch: 'e2', seq: 9 },
  },
  'an older counter': { replace: sql`update log_head set seq = 1`, epoch: 'e1r', seq: 1 },
};

for (const [what, { replace, epoch, seq }] of Object.entries(replacements)) {
  test(`a log that is replaced under a running process takes and gives nothing: ${what}`, async (t) => {
    const db = await databaseFor(t);
    let times = 0;
    const onReplaced = () => {
      times += 1;
    };
    const store = await TableLog.open(db, { clock: Date.now, newEpoch: 'e1', onReplaced });
    await store.append([request(event('a'), event('b')), keyed('k', 'b', event('c'))]);
    await db.execute(replace);

    await assert.rejects(store.append([request(event('d'))]), isUnavailable);
    await assert.rejects(store.append([keyed('k', 'b', event('c'))]), isUnavailable);
    await assert.rejects(store.state(), isUnavailable);

    await until(() => times > 0);
    const [head] = await db.query(sql`select epoch, seq from log_head`);
    assert.equal(times, 1);
    assert.deepEqual({ ...head }, { epoch, seq });
    assert.equal((await db.query(sql`select seq from events`)).length, 3);
  });
}

test('a head row that is missing is waited for', async (t) => {
  const { db, store } = await openTables(t);
  await store.append([request(event('a'))]);
  await db.execute(sql`delete from log_head`);

  await assert.rejects(store.append([request(event('b'))]), isUnavailable);
  await assert.rejects(store.state(), isUnavailable);
  await db.execute(
    sql`insert into log_head (id, epoch, seq, trimmed_seq, bytes) values (1, 'e1', 1, 0, 1)`,
  );

  assert.deepEqual(await store.append([request(event('b'))]), [{ kind: 'appended', firstSeq: 2 }]);
});

function isUnavailable(error: unknown): boolean {
  return error instanceof Failure && error.name === 'service_unavailable';
}
