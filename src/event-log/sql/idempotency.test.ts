import assert from 'node:assert/strict';
import { testOnDialects } from '../../../test/support/databases/dialects.js';
import {
  event,
  keyedEvent,
  keyedRequest,
  openStore,
  openStoreWithKeys,
  page,
  request,
  smallEventBytes,
} from '../../../test/support/databases/event-store.js';
import { outlineOutcome } from '../../../test/support/outline-outcome.js';
import { toReader } from '../../../test/support/to-reader.js';
import { sql } from '../../db/database.js';
import { Failure } from '../../errors.js';
import type { LoggableEvent } from '../log-store.js';
import { SqlLogStore } from './sql-log-store.js';

const test = await testOnDialects('idempotency keys');

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

test('events with their own idempotency keys are appended once, whichever events are appended with them', async (t) => {
  const { store } = await openStore(t);
  const append = async (...requests: Parameters<typeof request>[]) => {
    const outcomes = await store.append(requests.map((events) => request(...events)));
    return outcomes.map(outlineOutcome);
  };

  assert.deepEqual(await append([keyedEvent('a', '1'), event('2'), keyedEvent('b', '3')]), [
    'appended 1 2 3',
  ]);
  assert.deepEqual(await append([keyedEvent('b', '3')]), ['repeated 3']);
  assert.deepEqual(
    await append(
      [keyedEvent('c', '4'), keyedEvent('a', '1'), event('5'), keyedEvent('c', '4')],
      [event('6')],
    ),
    ['appended 4 1 5 4', 'appended 6'],
  );
  assert.deepEqual(
    await append([keyedEvent('d', '7')], [keyedEvent('d', '7')], [keyedEvent('d', 'other')]),
    ['appended 7', 'repeated 7', 'conflict'],
  );
  assert.deepEqual(await append([event('x'), keyedEvent('e', '8'), keyedEvent('a', 'other')]), [
    'conflict',
  ]);
  assert.deepEqual(await append([keyedEvent('e', '8')]), ['appended 8']);
  const { eventCount, bytes } = await store.readState();
  assert.deepEqual({ eventCount, bytes }, { eventCount: 8, bytes: 8 * smallEventBytes });
  const { events: read } = await store.read(toReader(['u:1']), { after: 0, upTo: 100 }, page);
  assert.equal(read.map(({ data }) => data).join(''), '12345678');
});

test('a conflict names the event whose idempotency key was used before', async (t) => {
  const { store } = await openStore(t);
  await store.append([request(keyedEvent('a', '1'))]);
  const second = keyedEvent('a', 'other');

  const [outcome] = await store.append([request(event('2'), second)]);

  assert.deepEqual(outcome, { kind: 'conflict', event: second });
});

test('a revoked API key does not affect the same idempotency key of another API key', async (t) => {
  const { store, keys, one, two } = await openStoreWithKeys(t);
  await keys.revoke('one'); // Takes number 1.
  const by = (keyId: string, ...events: LoggableEvent[]) => ({
    ...request(...events),
    publisher: { keyId },
  });

  const outcomes = await store.append([
    by(one, keyedEvent('k', 'a')),
    by(two, keyedEvent('k', 'a')),
    by(two, keyedEvent('k', 'a'), event('b')),
  ]);

  assert.deepEqual(outcomes.map(outlineOutcome), ['revoked', 'appended 2', 'appended 2 3']);
  assert.equal((await store.readState()).bytes, 2 * smallEventBytes);
});

test('requests with several idempotency keys succeed while other processes publish the same keys', async (t) => {
  const { db, wallClock, store } = await openStore(t);
  const options = { wallClock, newEpoch: 'x' };
  const [second, third] = [
    await SqlLogStore.open(db, options),
    await SqlLogStore.open(db, options),
  ];

  for (let round = 0; round < 10; round += 1) {
    const events = Array.from({ length: 20 }, (_, index) => keyedEvent(`${round}-${index}`, 'x'));
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

  assert.equal((await store.readState()).eventCount, 200);
});

test('of concurrent requests with one idempotency key, one appends and all return its ids', async (t) => {
  const { store } = await openStore(t);
  const appendConcurrently = (key: string) =>
    Promise.all([1, 2, 3].map(() => store.append([keyedRequest(key, 'b', event('1'))])));

  for (let round = 1; round <= 10; round += 1) {
    const outcomes = (await appendConcurrently(`k${round}-`)).flat();

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

test('two concurrent publishes with the same key are written once', async (t) => {
  const { openLog } = await openStore(t);
  const eventLog = await openLog();

  const both = await Promise.all([
    eventLog.append(keyedRequest('k', 'b', event('x'))),
    eventLog.append(keyedRequest('k', 'b', event('x'))),
  ]);

  assert.deepEqual(both, [
    { ids: ['e1-1'], isRepeated: false, newestSeq: 1 },
    { ids: ['e1-1'], isRepeated: true, newestSeq: 1 },
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
