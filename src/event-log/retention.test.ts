import assert from 'node:assert/strict';
import { testOnDialects } from '../../test/support/databases/dialects.js';
import { audiences, event, openStore, request } from '../../test/support/databases/event-store.js';
import { resolveStart } from '../../test/support/resolve-start.js';
import { unlimitedRetention } from '../../test/support/unlimited-retention.js';
import { sql } from '../db/database.js';
import { SqlLogStore } from './sql/sql-log-store.js';

const test = await testOnDialects('retention');

// [limits, number of events that are kept]. Ten events of 228 bytes are appended, one per second.
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

    const { trimmedSeq, seq, eventCount, bytes } = await store.readState();
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
    (await store.readOldestEntries(after, { entriesMax: 3, recipientsMax })).map(({ seq }) => seq);

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
    // A range that was computed before the first trim.
    await other.trim({ after: 0, upTo: 6, eventCount: 6, bytes: 6 * 228, now: 0 }),
  ];

  assert.deepEqual(rows, [10, 0]);
  const { trimmedSeq, bytes } = await other.readState();
  assert.deepEqual({ trimmedSeq, bytes }, { trimmedSeq: 5, bytes: 5 * 228 });
  assert.equal((await db.query(sql`select seq from events`)).length, 5);
});
