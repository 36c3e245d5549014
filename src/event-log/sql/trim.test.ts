import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { serverDialects, testOnDialects } from '../../../test/support/databases/dialects.js';
import { waitForBlocked, whileLocked } from '../../../test/support/databases/locks.js';
import { databaseFor } from '../../../test/support/databases/test-database.js';
import { outlineOutcome } from '../../../test/support/outline-outcome.js';
import { toReader } from '../../../test/support/to-reader.js';
import { type Database, sql } from '../../db/database.js';
import { SqlLogStore } from './sql-log-store.js';
import { findLastTrimmedSeqOfAudiences, recordTrimmed } from './trimmed-audiences.js';
import { findLastTrimmedSeqOfTopics, recordTrimmedTopics } from './trimmed-topics.js';

const test = await testOnDialects('trims');

const recipients = ['u:1', 'u:2', 't:3'];

/** Opens an event log in two processes. The event log has 12 events, in turn for the users 1 and 2 and the topic 3. */
async function openStores(t: TestContext) {
  const db = await databaseFor(t);
  const options = { wallClock: () => 1_800_000_000_000, newEpoch: 'e1' };
  const store = await SqlLogStore.open(db, options);
  const other = await SqlLogStore.open(db, options);
  for (let seq = 1; seq <= 12; seq += 1) await store.append([request(recipients[seq % 3] ?? '')]);
  return { db, store, other };
}

const request = (audience: string) => ({
  events: [{ audiences: [audience], type: 'note', data: '12345', expiresAt: undefined }],
  idempotency: undefined,
});

/** Creates the range of the events above `after`, up to `upTo`, with 5 bytes and one recipient each. */
const range = (after: number, upTo: number) => ({
  ...{ after, upTo, eventCount: upTo - after, bytes: 133 * (upTo - after), now: 0 },
});

/** Asserts that the events up to `trimmedSeq` are trimmed, and no others. */
async function assertTrimmed(db: Database, store: SqlLogStore, trimmedSeq: number): Promise<void> {
  const state = await store.readState();
  const keptCount = state.seq - trimmedSeq;
  const expected = { trimmedSeq, eventCount: keptCount, bytes: 133 * keptCount };
  assert.deepEqual({ ...state, ...expected }, state);
  for (const table of ['events', 'event_audiences']) {
    const rows = await db.query<{ seq: number }>({
      texts: [`select seq from ${table} order by seq`],
      values: [],
    });
    const kept = Array.from({ length: keptCount }, (_, index) => trimmedSeq + 1 + index);
    assert.deepEqual(
      rows.map(({ seq }) => seq),
      kept,
    );
  }
  const newest = (recipient: string) => {
    const seqs = Array.from({ length: trimmedSeq }, (_, index) => index + 1);
    return seqs.findLast((seq) => recipients[seq % 3] === recipient) ?? 0;
  };
  for (const user of ['u:1', 'u:2'])
    assert.equal(await store.findLastTrimmedSeq(toReader([user]), 0), newest(user), user);
  assert.equal(await store.findLastTrimmedSeq(toReader(['u:9'], { 3: 0 }), 0), newest('t:3'));
}

const heldRows = {
  events: sql`update events set type = type where seq = 4`,
  event_audiences: sql`update event_audiences set seq = seq where seq = 4`,
  trimmed_audiences: sql`update trimmed_audiences set seq = seq`,
  trimmed_topics: sql`update trimmed_topics set seq = seq`,
};

for (const [table, statement] of Object.entries(heldRows)) {
  const name = `publishers do not wait for a trim that waits for a row of ${table}`;
  const work = async (t: TestContext) => {
    const { db, store, other } = await openStores(t);
    await store.trim(range(0, 3));
    await whileLocked(db, statement, async (release) => {
      const trimming = store.trim(range(3, 6));
      await waitForBlocked(db, `delete from ${table} `);

      // Rejects at once if the trim has locked the counter row, where the append would wait.
      const lockCounterRow = sql`select seq from log_head where id = 1 for update nowait`;
      await db.transaction((tx) => tx.query(lockCounterRow));
      const outcomes = await other.append([request('u:2')]);

      assert.deepEqual(outcomes.map(outlineOutcome), ['appended 13']);
      await release();
      assert.equal(await trimming, 6);
    });
    await assertTrimmed(db, store, 6);
  };
  test(name, work, serverDialects);
}

for (const [first, second] of [
  [5, 7],
  [7, 5],
] as const) {
  test(
    `of two trims that wait for the same row, the trim up to ${first} deletes, and the trim up to ${second} deletes nothing`,
    async (t) => {
      const { db, store, other } = await openStores(t);
      const lock = sql`update events set type = type where seq = 2`;
      await whileLocked(db, lock, async (release) => {
        const firstTrim = store.trim(range(0, first));
        await waitForBlocked(db, 'delete from events ', 1);
        const secondTrim = other.trim(range(0, second));
        await waitForBlocked(db, 'delete from events ', 2);

        await release();

        assert.deepEqual(await Promise.all([firstTrim, secondTrim]), [2 * first, 0]);
        await assertTrimmed(db, store, first);
      });
    },
    serverDialects,
  );
}

test('of two trims at the same time, one trims and one deletes nothing', async (t) => {
  const { db, store, other } = await openStores(t);
  let trimmedSeq = 0;
  for (let round = 1; round <= 5; round += 1) {
    const [shorter, longer] = [
      range(trimmedSeq, trimmedSeq + 1),
      range(trimmedSeq, trimmedSeq + 2),
    ];

    const deletedRows = await Promise.all([store.trim(shorter), other.trim(longer)]);

    assert.ok(['2,0', '0,4'].includes(String(deletedRows)), `${deletedRows}`);
    trimmedSeq += deletedRows[0] === 2 ? 1 : 2;
    await assertTrimmed(db, store, trimmedSeq);
  }
});

test('a trim reads no rows below the range that it deletes', async (t) => {
  const { db, store } = await openStores(t);
  await store.trim(range(0, 6));
  // Rows below the range, which exist only in this test. They stand for deleted rows that the snapshot of a
  // backup keeps.
  await db.execute(sql`insert into events (seq, data, created_at) values (2, '', 0)`);
  await db.execute(sql`insert into event_audiences (audience, seq) values ('u:9', 2)`);

  assert.equal(await store.trim(range(6, 9)), 6);

  for (const table of ['events', 'event_audiences']) {
    const rows = await db.query<{ seq: number }>({
      texts: [`select seq from ${table} order by seq`],
      values: [],
    });
    assert.deepEqual(
      rows.map(({ seq }) => seq),
      [2, 10, 11, 12],
    );
  }
});

test('the newest trimmed event of each of thousands of audiences is recorded', async (t) => {
  const { db } = await openStores(t);
  const trimmed = Array.from({ length: 2500 }, (_, index) => ({
    audience: `u:${index}`,
    seq: index + 1,
  }));

  await db.transaction((tx) => recordTrimmed(tx, trimmed));

  for (const index of [0, 999, 1000, 1999, 2000, 2499]) {
    const seq = await findLastTrimmedSeqOfAudiences(db, [`u:${index}`]);
    assert.ok(seq > index, `u:${index} has ${seq}`); // Higher if it shares its bucket.
  }
});

/** Returns the newest trimmed event above `after` for a reader with these topics. */
const lastOf = (db: Database, topics: Record<string, number>, after = 0) =>
  findLastTrimmedSeqOfTopics(db, toReader([], topics).topics, after);

test('a trimmed topic counts for a reader only above its start and the number since which it has the topic', async (t) => {
  const { db, store } = await openStores(t);
  await store.trim(range(0, 7)); // The events 2 and 5 were for the topic 3.

  assert.equal(await lastOf(db, { 3: 0 }), 5);
  assert.equal(await lastOf(db, { 3: 4 }), 5);
  assert.equal(await lastOf(db, { 3: 5 }), 0);
  assert.equal(await lastOf(db, { 3: 0 }, 4), 5);
  assert.equal(await lastOf(db, { 3: 0 }, 5), 0);
  assert.equal(await lastOf(db, { 2: 0, 4: 0 }), 0);
  assert.equal(await lastOf(db, { 2: 0, 3: 0 }), 5);
  const both = toReader(['u:1'], { 3: 5 });
  assert.equal(await store.findLastTrimmedSeq(both, 0), 6);
  assert.equal(await store.findLastTrimmedSeq(both, 6), 0);
});

test('trimmed topics are exact: nothing counts for a reader with 1100 other topics', async (t) => {
  const { db } = await openStores(t);
  const trimmed = Array.from({ length: 5000 }, (_, index) => ({
    topic: `${index}`,
    seq: index + 1,
  }));
  const others = Array.from({ length: 1100 }, (_, index): [string, number] => [`x${index}`, 0]);

  await db.transaction((tx) => recordTrimmedTopics(tx, { after: 0, upTo: 5000, topics: trimmed }));

  assert.equal(await lastOf(db, Object.fromEntries(others)), 0);
  for (const index of [0, 999, 1000, 4999])
    assert.equal(await lastOf(db, Object.fromEntries([...others, [`${index}`, 0]])), index + 1);
  assert.equal(await lastOf(db, { A: 0 }), 0);
  const topics = [{ topic: 'a', seq: 6000 }];
  await db.transaction((tx) => recordTrimmedTopics(tx, { after: 5000, upTo: 6000, topics }));
  assert.equal(await lastOf(db, { A: 0 }), 0, 'the case of letters counts');
});

test('of too many trimmed topics the oldest are deleted, and the newest number deleted counts for every topic', async (t) => {
  const { db } = await openStores(t);
  const record = (...trimmed: [string, number][]) =>
    db.transaction((tx) =>
      recordTrimmedTopics(
        tx,
        { after: 0, upTo: 10, topics: trimmed.map(([topic, seq]) => ({ topic, seq })) },
        3,
      ),
    );

  await record(['a', 1], ['b', 2]);
  await record(['a', 5]);
  await record(['c', 6]);
  assert.equal(await lastOf(db, { other: 0 }), 0, 'three topics, as many as are kept');
  await record(['d', 8], ['e', 8]); // Deletes `b` and `a`.

  assert.equal(await lastOf(db, { other: 0 }), 5);
  assert.equal(await lastOf(db, { other: 4, later: 9 }), 5);
  assert.equal(await lastOf(db, { other: 5, later: 9 }), 0);
  assert.equal(await lastOf(db, { other: 0 }, 5), 0);
  assert.equal(await lastOf(db, { c: 0 }), 6);
  assert.equal(await lastOf(db, { d: 0 }, 5), 8);
  await record(['c', 9], ['f', 10]);
  assert.equal(await lastOf(db, { other: 0 }), 8, 'one of two topics with the same number');
  const rows = await db.query<{ topic: string }>(
    sql`select topic from trimmed_topics order by seq`,
  );
  assert.equal(rows.filter(({ topic }) => !topic.startsWith('*')).length, 3);
});

/** Trims as version 0.1.0 does, which records only audiences. */
async function trimByEarlierVersion(db: Database, after: number, upTo: number): Promise<void> {
  await db.transaction(async (tx) => {
    await tx.execute(sql`delete from events where seq > ${after} and seq <= ${upTo}`);
    const audiences = ['u:1', 'u:2', 't:3'].map((audience) => ({ audience, seq: upTo }));
    await recordTrimmed(tx, audiences);
    await tx.execute(sql`delete from event_audiences where seq > ${after} and seq <= ${upTo}`);
    await tx.execute(
      sql`update log_head set trimmed_seq = ${upTo}, events = events - ${upTo - after},
          bytes = bytes - ${133 * (upTo - after)}
        where id = 1`,
    );
  });
}

test('what an earlier version trims counts for every topic, before and after the next trim', async (t) => {
  const { db, store } = await openStores(t);
  await trimByEarlierVersion(db, 0, 2); // Before the upgrade.
  assert.equal(await lastOf(db, { 9: 2 }), 0, 'topics since the upgrade');
  await store.trim(range(2, 4));
  assert.equal(await lastOf(db, { 9: 2 }), 0, 'a trim by this version');
  await trimByEarlierVersion(db, 4, 6);

  for (const upTo of [undefined, 9, 12]) {
    if (upTo !== undefined) await store.trim(range(upTo - 3, upTo));
    assert.equal(await lastOf(db, { 9: 0 }), 6);
    assert.equal(await lastOf(db, { 9: 5, 8: 6 }), 6);
    assert.equal(await lastOf(db, { 9: 6 }), 0);
    assert.equal(await lastOf(db, { 9: 0 }, 5), 6);
    assert.equal(await lastOf(db, { 9: 0 }, 6), 0);
  }
  assert.equal(await lastOf(db, { 3: 6 }), 11);
});

test('a trim of events without topics records that no topic has lost any', async (t) => {
  const { db, store } = await openStores(t);

  await store.trim(range(0, 1));

  assert.equal(await lastOf(db, { 3: 0 }), 0);
});
