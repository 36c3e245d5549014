import assert from 'node:assert/strict';
import { testOnDialects } from '../../test/support/databases/dialects.js';
import { databaseFor } from '../../test/support/databases/test-database.js';
import { sql } from '../db/database.js';
import { controlEntryAppender, headSeqSql } from '../event-log/open.js';
import { SqlLogStore } from '../event-log/sql/sql-log-store.js';
import { parseControlEntry } from '../events/control-entry.js';
import { Disconnects } from './disconnects.js';

const test = await testOnDialects('disconnects');

const dayMs = 86_400_000;

async function openDisconnects(t: Parameters<typeof databaseFor>[0], tokenKeptMs = 0) {
  const db = await databaseFor(t);
  const time = { now: 1_800_000_000_000 };
  const wallClock = () => time.now;
  await SqlLogStore.open(db, { wallClock, newEpoch: 'e' });
  const appendControlEntries = controlEntryAppender(db, wallClock);
  const disconnects = new Disconnects({
    ...{ db, wallClock, appendControlEntries, headSeqSql, tokenKeptMs },
  });
  const countRows = async () => (await db.query(sql`select user_id from disconnects`)).length;
  return { db, time, disconnects, countRows };
}

test('a disconnect is an entry of the event log, and its number is returned', async (t) => {
  const { db, disconnects } = await openDisconnects(t);
  const request = { userId: 'auth0|1', renew: true, issuedBefore: 5 };

  assert.equal(await disconnects.add(request), 1);
  assert.equal(await disconnects.add({ ...request, sessionIds: ['a', 'b'], streams: ['c'] }), 2);

  const rows = await db.query<{ control: string }>(sql`select control from events order by seq`);
  const entries = rows.map(({ control }) => parseControlEntry(control));
  assert.deepEqual(entries, [
    { kind: 'disconnected', disconnect: { userId: 'auth0|1', renew: true } },
    {
      kind: 'disconnected',
      disconnect: { userId: 'auth0|1', renew: true, sessionIds: ['a', 'b'], streams: ['c'] },
    },
  ]);
});

test('a disconnect of a user limits the JWTs of all sessions of exactly this user', async (t) => {
  const { disconnects } = await openDisconnects(t);
  await disconnects.add({ userId: 'Ada', renew: false, issuedBefore: 7000 });
  await disconnects.add({ userId: 'Ada', renew: false, issuedBefore: 6000 });

  assert.deepEqual(await disconnects.findState('Ada', 's1'), { issuedBefore: 7000, headSeq: 2 });
  for (const other of ['ada', 'Ada2', 'Ad'])
    assert.deepEqual(await disconnects.findState(other, 's1'), { issuedBefore: 0, headSeq: 2 });
});

test('a disconnect of a session limits its JWTs, and a disconnect of a stream limits no JWT', async (t) => {
  const { disconnects } = await openDisconnects(t);
  await disconnects.add({ userId: 'a', renew: false, issuedBefore: 7000, sessionIds: ['s1'] });
  await disconnects.add({ userId: 'a', renew: false, issuedBefore: 9000, streams: ['s2'] });

  assert.equal((await disconnects.findState('a', 's1')).issuedBefore, 7000);
  assert.equal((await disconnects.findState('a', 's2')).issuedBefore, 0);
  assert.equal((await disconnects.findState('b', 's1')).issuedBefore, 0);
});

test('a disconnect is deleted after 31 days', async (t) => {
  const { time, disconnects, countRows } = await openDisconnects(t);
  await disconnects.add({ userId: 'a', renew: false, issuedBefore: 1 });
  time.now += 1;
  await disconnects.add({ userId: 'b', renew: false, issuedBefore: 1 });

  time.now += 31 * dayMs - 1;
  assert.equal(await disconnects.sweep(), 0);
  time.now += 1;
  assert.equal(await disconnects.sweep(), 1);
  assert.equal(await countRows(), 1);
});

test('a disconnect is kept a day longer than a stream token that is not open', async (t) => {
  const { time, disconnects } = await openDisconnects(t, 60 * dayMs);
  await disconnects.add({ userId: 'a', renew: false, issuedBefore: 1 });

  time.now += 61 * dayMs;
  assert.equal(await disconnects.sweep(), 0);
  time.now += 1;
  assert.equal(await disconnects.sweep(), 1);
});
