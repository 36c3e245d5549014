import assert from 'node:assert/strict';
import { testOnDialects } from '../../../test/support/databases/dialects.js';
import {
  event,
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
import type { LoggableEvent } from '../log-store.js';
import { SqlLogStore } from './sql-log-store.js';

const test = await testOnDialects('appends');

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
  const { epoch, seq, bytes } = await again.readState();
  assert.deepEqual({ epoch, seq, bytes }, { epoch: 'e1', seq: 4, bytes: 4 * smallEventBytes });
});

test('concurrent publishes are numbered in arrival order and delivered in order', async (t) => {
  const { openLog } = await openStore(t);
  const eventLog = await openLog();
  const delivered: number[] = [];
  eventLog.subscribe({
    deliver: (_, { seq }) => delivered.push(seq),
    deliverVolatile() {},
    applyControl() {},
    handleGap() {},
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

test('when one of the requests of a commit cannot be written, only that request fails', async (t) => {
  const { openLog } = await openStore(t);
  const eventLog = await openLog();
  const delivered: string[] = [];
  eventLog.subscribe({
    deliver: ({ data }) => delivered.push(data),
    deliverVolatile() {},
    applyControl() {},
    handleGap() {},
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
    value: { ids: ['e1-3'], isRepeated: false, newestSeq: 3 },
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
    handleGap() {},
  });

  await other.append([request(event('remote 1'))]);
  await eventLog.append(request(event('local')));
  await other.append([request(event('remote 2'))]);
  await eventLog.catchUp();

  assert.deepEqual(delivered, ['remote 1', 'local', 'remote 2']);
});

test('when requests share a commit, only those of a revoked API key are rejected', async (t) => {
  const { store, keys, one, two } = await openStoreWithKeys(t);
  const by = (keyId: string, ...events: LoggableEvent[]) => ({
    ...request(...events),
    publisher: { keyId },
  });
  await store.append([by(one, event('a')), by(two, event('b'))]);
  await store.append([by(one, event('c'))]);

  await keys.revoke('one'); // Takes number 4.
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
  const { eventCount, bytes } = await store.readState();
  assert.deepEqual({ eventCount, bytes }, { eventCount: 8, bytes: 8 * smallEventBytes });
  const { events: read } = await store.read(toReader(['u:1']), { after: 0, upTo: 10 }, page);
  assert.equal(read.map(({ data }) => data).join(''), 'abcdefgh');
});

test('repeating a request with a revoked API key is rejected despite its idempotency key', async (t) => {
  const { store, keys, one } = await openStoreWithKeys(t);
  const repeated = { ...keyedRequest('k', 'b', event('x')), publisher: { keyId: one } };
  await store.append([repeated]);

  await keys.revoke(one);

  assert.deepEqual((await store.append([repeated])).map(outlineOutcome), ['revoked']);
});

test('revoking an API key takes one sequence number, and a publish snapshot shows the number and the revocation', async (t) => {
  const { store, keys, one, two } = await openStoreWithKeys(t);
  await store.append([request(event('a'))]);
  assert.deepEqual(await store.readPublishSnapshot({ keyId: one }), { seq: 1, refusal: undefined });

  assert.equal(await keys.revoke(one), true);
  assert.equal(await keys.revoke(one), false);

  assert.deepEqual(await store.readPublishSnapshot({ keyId: one }), { seq: 2, refusal: 'revoked' });
  assert.deepEqual(await store.readPublishSnapshot({ keyId: two }), { seq: 2, refusal: undefined });
  assert.deepEqual(await store.readPublishSnapshot(undefined), { seq: 2, refusal: undefined });
  assert.deepEqual((await store.readAll({ after: 1, upTo: 2 }, 1e6)).entries, [
    { seq: 2, control: `{"kind":"key_revoked","keyId":"${one}"}` },
  ]);
});

test('when requests share a commit, only those that were checked against another user prefix are rejected', async (t) => {
  const { store, keys, one, two } = await openStoreWithKeys(t);
  const by = (keyId: string, userPrefix: string | undefined, data: string) => ({
    ...request(event(data)),
    publisher: { keyId, userPrefix },
  });
  await store.append([by(one, undefined, 'a'), by(two, '', 'b')]);
  await store.append([by(one, '', 'c'), by(two, undefined, 'd')]);

  await keys.change('one', { userPrefix: 'shop:' }); // Takes number 5.
  const outcomes = await store.append([
    by(one, undefined, 'refused'),
    by(one, 'shop:', 'e'),
    by(one, 'shop', 'refused'),
    by(two, undefined, 'f'),
    by(two, 'shop:', 'refused'),
    by(one, 'shop:', 'g'),
  ]);
  const next = await store.append([by(one, 'shop:', 'h'), by(two, '', 'i')]);
  const swapped = await store.append([by(one, '', 'refused'), by(two, 'shop:', 'refused')]);
  const alone = await store.append([by(one, 'Shop:', 'refused')]);
  const late = await store.append([by(one, '', 'refused')]);

  assert.deepEqual([...outcomes, ...next, ...swapped, ...alone, ...late].map(outlineOutcome), [
    ...['limits_changed', 'appended 6', 'limits_changed', 'appended 7', 'limits_changed'],
    ...['appended 8', 'appended 9', 'appended 10'],
    ...['limits_changed', 'limits_changed', 'limits_changed', 'limits_changed'],
  ]);
  const { events: read } = await store.read(toReader(['u:1']), { after: 0, upTo: 10 }, page);
  assert.equal(read.map(({ data }) => data).join(''), 'abcdefghi');
});

test('only requests that were checked against the stored topics of their API key are accepted', async (t) => {
  const { db, store, one } = await openStoreWithKeys(t);
  const patterns = ['orders:*', 'a'.repeat(128)];
  const topics = JSON.stringify(patterns);
  await db.execute(
    sql`update api_keys set topics = ${topics}, user_prefix = 'shop:' where id = ${one}`,
  );
  const by = (topicPatterns: readonly string[] | undefined, userPrefix = 'shop:') => ({
    ...{ keyId: one, userPrefix, topicPatterns },
  });

  const publishers = [
    by(patterns),
    by(undefined),
    by([]),
    by(['orders:*']),
    by(['Orders:*', 'a'.repeat(128)]),
    by(patterns.toReversed()),
    by(patterns, 'shop'),
  ];

  const [allowed, ...refused] = publishers;
  assert.ok(allowed);
  for (let round = 0; round < 2; round += 1) {
    // The second round knows the number of the next event, and takes another way.
    const [outcome] = await store.append([{ ...request(event('x')), publisher: allowed }]);
    assert.equal(outcome?.kind, 'appended');
  }
  assert.equal((await store.readPublishSnapshot(allowed)).refusal, undefined);
  for (const publisher of refused) {
    const [outcome] = await store.append([{ ...request(event('x')), publisher }]);
    assert.equal(outcome?.kind, 'limits_changed');
    assert.equal((await store.readPublishSnapshot(publisher)).refusal, 'limits_changed');
  }
});

test('an API key appends until the millisecond in which it expires', async (t) => {
  const { store, keys, time, one, two } = await openStoreWithKeys(t);
  const by = (keyId: string) => ({ ...request(event('x')), publisher: { keyId } });
  const expiresAt = time.now + 1000;
  await keys.change('one', { expiresAt }); // Takes number 1.
  await store.append([by(two)]);

  time.now = expiresAt - 1;
  const before = await store.append([by(one)]);
  const snapshotBefore = await store.readPublishSnapshot({ keyId: one });
  time.now = expiresAt;
  const after = await store.append([by(one), by(two)]);
  const snapshotAfter = await store.readPublishSnapshot({ keyId: one });

  assert.deepEqual([...before, ...after].map(outlineOutcome), [
    ...['appended 3', 'expired', 'appended 4'],
  ]);
  assert.deepEqual(snapshotBefore, { seq: 3, refusal: undefined });
  assert.deepEqual(snapshotAfter, { seq: 4, refusal: 'expired' });
});

test('changing an API key takes one sequence number, and a publish snapshot shows the number and the change', async (t) => {
  const { store, keys, one, two } = await openStoreWithKeys(t);
  await store.append([request(event('a'))]);

  assert.equal(await keys.change('one', { userPrefix: 'shop:' }), true);
  assert.equal(await keys.change('three', { userPrefix: 'shop:' }), false);

  const refusals = [
    [one, undefined, 'limits_changed'],
    [one, '', 'limits_changed'],
    [one, 'shop', 'limits_changed'],
    [one, 'shop:', undefined],
    [two, undefined, undefined],
    [two, '', undefined],
    [two, 'shop:', 'limits_changed'],
  ] as const;
  for (const [keyId, userPrefix, refusal] of refusals) {
    const snapshot = await store.readPublishSnapshot({ keyId, userPrefix });
    assert.deepEqual(snapshot, { seq: 2, refusal });
  }
  assert.deepEqual((await store.readAll({ after: 1, upTo: 2 }, 1e6)).entries, [
    { seq: 2, control: `{"kind":"key_changed","keyId":"${one}"}` },
  ]);
});
