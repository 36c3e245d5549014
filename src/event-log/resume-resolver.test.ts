import assert from 'node:assert/strict';
import { testOnDialects } from '../../test/support/databases/dialects.js';
import { audiences, event, openStore, request } from '../../test/support/databases/event-store.js';
import { resolveStart } from '../../test/support/resolve-start.js';
import { toReader } from '../../test/support/to-reader.js';
import { unlimitedRetention } from '../../test/support/unlimited-retention.js';
import { sql } from '../db/database.js';

const test = await testOnDialects('starts of streams');

test('a fresh stream of a lagging process starts at the head of the database', async (t) => {
  const { openLog } = await openStore(t);
  const [lagging, other] = [await openLog(), await openLog()];
  await other.append(request(event('before the open')));

  const { seq } = await resolveStart(lagging, ['u:1']);

  assert.equal(lagging.head, 0);
  assert.equal(seq, 1);
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

test('without a Last-Event-ID, a stream starts at the beginning of its token', async (t) => {
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

test('a stream can resume from before a trimmed event that had expired', async (t) => {
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

test('a trimmed event of a topic is a loss only for a reader that had the topic before it', async (t) => {
  const { openLog } = await openStore(t);
  const eventLog = await openLog({ ...unlimitedRetention, eventsMax: 1 });
  for (const topic of ['a', 'b', 'a', 'c'])
    await eventLog.append(request(event('x', [`t:${topic}`])));
  await eventLog.trim(); // Up to 3.
  const resolve = async (topics: Record<string, number>, seq: number) =>
    (await resolveStart(eventLog, toReader(audiences, topics), `e1-${seq}`)).reason;

  assert.equal(await resolve({}, 0), 'resumed');
  assert.equal(await resolve({ a: 0 }, 2), 'too_old');
  assert.equal(await resolve({ a: 0 }, 3), 'resumed');
  assert.equal(await resolve({ a: 2 }, 0), 'too_old');
  assert.equal(await resolve({ a: 3, b: 2, c: 0 }, 0), 'resumed');
});
