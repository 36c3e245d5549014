import assert from 'node:assert/strict';
import { test } from 'node:test';
import { until } from '../../test/support/until.js';
import { Failure } from '../errors.js';
import { Batcher } from './batcher.js';

const unavailable = () => new Failure('service_unavailable', 'unavailable');

/** Creates a batcher that records its batches and completes one when `endOldest` is called. */
function createManualBatcher({ isImmediate = false } = {}) {
  const batches: (readonly number[])[] = [];
  const batchEnds: ((cause?: unknown) => void)[] = [];
  const batcher = new Batcher<number, number>(
    (items) => {
      batches.push(items);
      return new Promise((resolve, reject) => {
        batchEnds.push((cause) => {
          if (cause === undefined) resolve(items.map((item) => 10 * item));
          else reject(cause);
        });
      });
    },
    { isImmediate },
  );
  /** Ends the oldest batch in flight; waits for one if there is none. */
  const endOldest = async (cause?: unknown) => {
    await until(() => batchEnds.length > 0);
    batchEnds.shift()?.(cause);
  };
  return { batcher, batches, endOldest };
}

const nextTurn = () => new Promise<void>((resolve) => setImmediate(resolve));

test('items requested in one event-loop turn form one batch, and each gets its own result', async () => {
  const { batcher, batches, endOldest } = createManualBatcher();

  const results = [1, 2, 3].map((item) => batcher.run(item));
  assert.deepEqual(batches, []);
  await endOldest();

  assert.deepEqual(await Promise.all(results), [10, 20, 30]);
  assert.deepEqual(batches, [[1, 2, 3]]);
});

test('an immediate batcher starts the first two items synchronously', async () => {
  const { batcher, batches, endOldest } = createManualBatcher({ isImmediate: true });

  const results = [1, 2, 3, 4].map((item) => batcher.run(item));
  assert.deepEqual(batches, [[1], [2]]);
  for (let count = 0; count < 3; count += 1) await endOldest();

  assert.deepEqual(await Promise.all(results), [10, 20, 30, 40]);
  assert.deepEqual(batches, [[1], [2], [3, 4]]);
});

test('items requested while two batches are in flight wait for the next batch', async () => {
  const { batcher, batches, endOldest } = createManualBatcher();

  const first = batcher.run(1);
  await nextTurn();
  const second = batcher.run(2);
  await nextTurn();
  const others = [3, 4].map((item) => batcher.run(item));
  await nextTurn();
  assert.deepEqual(batches, [[1], [2]]);
  await endOldest();
  await first;
  await until(() => batches.length === 3);
  await endOldest();
  await endOldest();

  assert.deepEqual(await Promise.all([second, ...others]), [20, 30, 40]);
  assert.deepEqual(batches, [[1], [2], [3, 4]]);
});

test('a batch has at most 32 items', async () => {
  const sizes: number[] = [];
  const batcher = new Batcher<number, number>(
    async (items) => {
      sizes.push(items.length);
      return items;
    },
    { isImmediate: false },
  );

  await Promise.all(Array.from({ length: 65 }, (_, item) => batcher.run(item)));

  assert.deepEqual(sizes, [32, 32, 1]);
});

test('an item that fails does not fail the others of its batch', async () => {
  const batches: (readonly number[])[] = [];
  const batcher = new Batcher<number, number>(
    async (items) => {
      batches.push(items);
      if (items.includes(2)) throw new Error('not 2');
      return items;
    },
    { isImmediate: false },
  );

  const outcomes = await Promise.allSettled([1, 2, 3].map((item) => batcher.run(item)));

  assert.deepEqual(
    outcomes.map((outcome) =>
      outcome.status === 'fulfilled' ? outcome.value : String(outcome.reason),
    ),
    [1, 'Error: not 2', 3],
  );
  assert.deepEqual(batches, [[1, 2, 3], [1], [2], [3]]);
});

test('a Failure rejects all waiting items, and later items start a new batch', async () => {
  const { batcher, batches, endOldest } = createManualBatcher();

  const inFlight = await startTwo(batcher);
  const waiting = batcher.run(3);
  await endOldest(unavailable());
  await assert.rejects(waiting, { name: 'service_unavailable' });
  await endOldest(unavailable());
  const outcomes = await Promise.allSettled(inFlight);
  assert.ok(outcomes.every(({ status }) => status === 'rejected'));

  const later = batcher.run(4);
  await endOldest();

  assert.equal(await later, 40);
  assert.deepEqual(batches, [[1], [2], [4]]);
});

test('at most 2,000 items wait, and one more item is refused', async () => {
  const { batcher, endOldest } = createManualBatcher();
  const inFlight = await startTwo(batcher);

  const waiting = Array.from({ length: 2000 }, (_, item) => batcher.run(item));
  await assert.rejects(batcher.run(2000), { name: 'service_unavailable' });
  await endOldest(unavailable());
  await endOldest(unavailable());

  const all = await Promise.allSettled([...inFlight, ...waiting]);
  assert.ok(all.every(({ status }) => status === 'rejected'));
});

test('requests for an item that waits share it, and do not fill the queue', async () => {
  const { batcher, batches, endOldest } = createManualBatcher();
  const inFlight = await startTwo(batcher);

  const waiting = Array.from({ length: 1999 }, (_, item) => batcher.run(item + 10));
  const same = Array.from({ length: 5000 }, () => batcher.run(1)); // Not answered by the batch in flight.
  await assert.rejects(batcher.run(2), { name: 'service_unavailable' });
  for (let count = 0; count < 2 + Math.ceil(2000 / 32); count += 1) await endOldest();

  assert.deepEqual(new Set(await Promise.all(same)), new Set([10]));
  assert.equal(batches.flat().filter((item) => item === 1).length, 2);
  await Promise.all([...inFlight, ...waiting]);
});

async function startTwo(batcher: Batcher<number, number>): Promise<Promise<number>[]> {
  const first = batcher.run(1);
  await nextTurn();
  const second = batcher.run(2);
  await nextTurn();
  return [first, second];
}
