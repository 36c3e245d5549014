import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { testOnDialects } from '../../../test/support/databases/dialects.js';
import { event, openStore, page, request } from '../../../test/support/databases/event-store.js';
import { withStatementLog } from '../../../test/support/recording/statement-hooks.js';
import { toReader } from '../../../test/support/to-reader.js';
import { type Database, inserts, sql } from '../../db/database.js';
import { findTopics, type Reader } from '../../events/topic.js';
import type { LogStore, PageLimits } from '../log-store.js';
import { SqlLogStore } from './sql-log-store.js';

const test = await testOnDialects('reads of topics');

/** Returns numbers from 0 to 1 that look random, the same ones for each seed. */
function createRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    return state / 2_147_483_648;
  };
}

/** Fills an empty event log with one event per list of audiences, numbered from 1 on. */
async function fillLog(db: Database, audiencesBySeq: readonly (readonly string[])[]) {
  const events = audiencesBySeq.map((_, index) => [index + 1, 'x', 0]);
  const recipients = audiencesBySeq.flatMap((audiences, index) =>
    audiences.map((audience) => [audience, index + 1]),
  );
  await db.transaction(async (tx) => {
    for (const insert of inserts(sql`insert into events (seq, data, created_at) values `, events))
      await tx.execute(insert);
    const into = sql`insert into event_audiences (audience, seq) values `;
    for (const insert of inserts(into, recipients)) await tx.execute(insert);
    await tx.execute(sql`update log_head set seq = ${audiencesBySeq.length} where id = 1`);
  });
}

/** Opens an event log with an event per list of audiences. `statements` gets the text of each statement. */
async function openFilled(t: TestContext, audiencesBySeq: readonly (readonly string[])[]) {
  const { db, wallClock } = await openStore(t);
  await fillLog(db, audiencesBySeq);
  const statements: string[] = [];
  const options = { wallClock, newEpoch: 'x' };
  const store = await SqlLogStore.open(withStatementLog(db, statements), options);
  return { store, statements };
}

/** Returns what a reader receives after a position: numbers, and topics where they are the only reason. */
function findExpected(
  audiencesBySeq: readonly (readonly string[])[],
  { audiences, topics }: Reader,
  after: number,
) {
  return audiencesBySeq.flatMap((recipients, index): [number, readonly string[]][] => {
    const seq = index + 1;
    if (seq <= after) return [];
    const found = findTopics(recipients, topics, seq);
    if (recipients.some((each) => audiences.includes(each))) return [[seq, []]];
    return found.length > 0 ? [[seq, [...found].sort()]] : [];
  });
}

/** Reads pages to the end, and returns the same as `findExpected`. */
async function readAllPages(store: LogStore, reader: Reader, after: number, limits: PageLimits) {
  const { seq: upTo } = await store.readState();
  const received: [number, readonly string[]][] = [];
  for (let cursor = after; ; ) {
    const { events, endSeq, hasMore, topicsBySeq } = await store.read(
      reader,
      { after: cursor, upTo },
      limits,
    );
    assert.ok(events.length <= limits.eventsMax);
    assert.ok(endSeq > cursor || !hasMore, `a page at ${cursor} ends at ${endSeq}`);
    for (const { seq } of events) received.push([seq, [...(topicsBySeq?.get(seq) ?? [])].sort()]);
    cursor = endSeq;
    if (!hasMore) return received;
  }
}

test('an event comes once, however many of its audiences a reader has, and with topics only if no other matches', async (t) => {
  const { store } = await openStore(t);
  const recipients = [
    ['u:1', 't:a', 't:b'],
    ['t:a', 't:b', 't:c'],
    ['t:c'],
    ['u:2', 't:b'],
    ['all', 't:a'],
    ['t:A'],
  ];
  await store.append([request(...recipients.map((to, index) => event(String(index + 1), to)))]);
  const reader = toReader(['all', 'u:1', 's:x'], { a: 0, b: 0 });

  const found = await store.read(reader, { after: 0, upTo: 6 }, page);

  assert.deepEqual(
    found.events.map(({ seq }) => seq),
    [1, 2, 4, 5],
  );
  assert.deepEqual([found.endSeq, found.hasMore], [6, false]);
  const topics = [...(found.topicsBySeq ?? [])].map(([seq, each]) => [seq, [...each].sort()]);
  assert.deepEqual(topics, [
    [2, ['t:a', 't:b']],
    [4, ['t:b']],
  ]);
});

test('a reader receives events of a topic only above the number since which it has the topic', async (t) => {
  const { store } = await openStore(t);
  await store.append([request(...[1, 2, 3, 4].map((seq) => event(String(seq), ['t:a'])))]);
  const read = async (since: number, after: number) => {
    const found = await store.read(toReader(['all'], { a: since }), { after, upTo: 4 }, page);
    return found.events.map(({ seq }) => seq);
  };

  assert.deepEqual(await read(0, 0), [1, 2, 3, 4]);
  assert.deepEqual(await read(2, 0), [3, 4]);
  assert.deepEqual(await read(2, 3), [4]);
  assert.deepEqual(await read(3, 0), [4]);
  assert.deepEqual(await read(4, 0), []);
  assert.deepEqual(await read(9, 0), []);
});

// [description, number of topics of the reader, share of them with a later `since`, share of matching events]
const mixes = [
  ['few topics', 16, 0.5, 0.2],
  ['more topics than are searched one by one', 17, 0.5, 0.2],
  ['1100 topics', 1100, 0, 0.1],
  ['1100 topics, many of which are since later', 1100, 0.5, 0.5],
  ['1100 topics, all since later', 1100, 1, 0.5],
  ['1100 topics of which every event has several', 1100, 0.1, 1],
] as const;

for (const [what, topicCount, lateShare, matchShare] of mixes) {
  test(`pages of a reader with ${what} have the events that it may receive, each once and in order`, async (t) => {
    const count = 6000;
    const random = createRandom(topicCount + lateShare * 10);
    const pick = (max: number) => Math.floor(random() * max);
    const audiencesBySeq = Array.from({ length: count }, () => {
      if (random() > matchShare) return [`u:${2 + pick(50)}`];
      const topics = Array.from({ length: 1 + pick(5) }, () => `t:${pick(topicCount + 5)}`);
      return [...new Set([...topics, ...(random() < 0.1 ? ['u:1'] : [])])];
    });
    const entries = Array.from({ length: topicCount }, (_, topic): [string, number] => {
      return [String(topic), random() < lateShare ? pick(count + 50) : 0];
    });
    const reader = toReader(['all', 'u:1', 's:x'], Object.fromEntries(entries));
    const { store, statements } = await openFilled(t, audiencesBySeq);

    for (const [after, eventsMax] of [
      [0, 256],
      [1, 100],
      [count - 700, 7],
      [count, 256],
    ] as const) {
      const limits = { eventsMax, bytesMax: 1e6 };
      const received = await readAllPages(store, reader, after, limits);

      assert.deepEqual(received, findExpected(audiencesBySeq, reader, after));
    }
    const limits = { eventsMax: 256, bytesMax: 1e6 };
    statements.length = 0;
    await store.read(reader, { after: 0, upTo: count }, limits);
    assert.ok(statements.length <= 6, `${statements.length} statements`);
  });
}

test('pages of a reader with 1000 topics have 16 events if each event has 100 of the topics', async (t) => {
  const audiencesBySeq = Array.from({ length: 3000 }, (_, index) =>
    Array.from({ length: 100 }, (_, topic) => `t:${(index * 7 + topic) % 1000}`),
  );
  const { store, statements } = await openFilled(t, audiencesBySeq);
  const topics = Object.fromEntries(Array.from({ length: 1000 }, (_, index) => [`${index}`, 0]));
  statements.length = 0;

  const found = await store.read(toReader(['u:1'], topics), { after: 0, upTo: 3000 }, page);

  assert.deepEqual([found.events.length, found.endSeq, found.hasMore], [16, 16, true]);
  assert.equal(statements.length, 6);
});

test('a reader that may receive nothing reads a long event log with 1100 topics in two statements', async (t) => {
  const audiencesBySeq = Array.from({ length: 5000 }, (_, index) => [`t:other ${index % 7}`]);
  const { store, statements } = await openFilled(t, audiencesBySeq);
  const topics = Object.fromEntries(Array.from({ length: 1100 }, (_, index) => [`${index}`, 0]));
  statements.length = 0;

  const found = await store.read(toReader(['u:1'], topics), { after: 0, upTo: 5000 }, page);

  assert.deepEqual([found.events, found.endSeq, found.hasMore], [[], 5000, false]);
  assert.equal(statements.length, 2);
});

test('a page of topics ends with the event that reaches the byte limit', async (t) => {
  const { store } = await openStore(t);
  const sizes = [10, 10, 30, 100];
  await store.append([request(...sizes.map((size) => event('x'.repeat(size), ['t:a'])))]);
  const read = async (after: number, bytesMax: number) => {
    const reader = toReader(['all'], { a: 0 });
    const limits = { eventsMax: 100, bytesMax };
    const { events, endSeq, hasMore } = await store.read(reader, { after, upTo: 4 }, limits);
    return [events.map(({ data }) => data.length), endSeq, hasMore];
  };

  assert.deepEqual(await read(0, 20), [[10, 10], 2, true]);
  assert.deepEqual(await read(0, 21), [[10, 10, 30], 3, true]);
  assert.deepEqual(await read(3, 1), [[100], 4, false]);
});
