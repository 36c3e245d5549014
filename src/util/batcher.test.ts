import assert from 'node:assert/strict';
import { test } from 'node:test';
import { until } from '../../test/support/until.js';
import { Failure } from '../errors.js';
import { Batcher } from './batcher.js';

const unavailable = () => new Failure('service_unavailable', 'unavailable');

/** Creates a batcher that records its batches and completes one when `end` is called. */
function createManual({ isImmediate = false } = {}) {
  const batches: (readonly number[])[] = [];
  const ends: ((cause?: unknown) => void)[] = [];
  const batcher = new Batcher<number, number>(
    (items) => {
      batches.push(items);
      return new Promise((resolve, reject) => {
        ends.push((cause) => {
          if (cause === undefined) resolve(items.map((item) => 10 * item));
          else reject(cause);
        });
      });
    },
    { isImmediate },
  );
  /** Ends the oldest batch in flight; waits for one if there is none. */
  const end = async (cause?: unknown) => {
    await until(() => ends.length > 0);
    ends.shift()?.(cause);
  };
  return { batcher, batches, end };
}

const nextTurn = () => new Promise<void>((resolve) => setImmediate(resolve));

test('items of one event-loop turn are one batch, and each gets its own result', async () => {
  const { batcher, batches, end } = createManual();

  const requested = [1, 2, 3].map((item) => batcher.run(item));
  assert.deepEqual(batches, []);
  await end();

  assert.deepEqual(await Promise.all(requested), [10, 20, 30]);
  assert.deepEqual(batches, [[1, 2, 3]]);
});

test('an immediate batcher starts the first two items synchronously', async () => {
  const { batcher, batches, end } = createManual({ isImmediate: true });

  const requested = [1, 2, 3, 4].map((item) => batcher.run(item));
  assert.deepEqual(batches, [[1], [2]]);
  for (let count = 0; count < 3; count += 1) await end();

  assert.deepEqual(await Promise.all(requested), [10, 20, 30, 40]);
  assert.deepEqual(batches, [[1], [2], [3, 4]]);
});

test('items requested while two batches are in flight wait for the next batch', async () => {
  const { batcher, batches, end } = createManual();

  const first = batcher.run(1);
  await nextTurn();
  const second = batcher.run(2);
  await nextTurn();
  const others = [3, 4].map((item) => batcher.run(item));
  await nextTurn();
  assert.deepEqual(batches, [[1], [2]]);
  await end();
  await first;
  await until(() => batches.length === 3);
  await end();
  await end();

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

  const requested = await Promise.allSettled([1, 2, 3].map((item) => batcher.run(item)));

  assert.deepEqual(
    requested.map((one) => (one.status === 'fulfilled' ? one.value : String(one.reason))),
    [1, 'Error: not 2', 3],
  );
  assert.deepEqual(batches, [[1, 2, 3], [1], [2], [3]]);
});

test('a Failure rejects all waiting items, and later items start a new batch', async () => {
  const { batcher, batches, end } = createManual();

  const inFlight = await startTwo(batcher);
  const waiting = batcher.run(3);
  await end(unavailable());
  await assert.rejects(waiting, { name: 'service_unavailable' });
  await end(unavailable());
  const requested = await Promise.allSettled(inFlight);
  assert.ok(requested.every(({ status }) => status === 'rejected'));

  const later = batcher.run(4);
  await end();

  assert.equal(await later, 40);
  assert.deepEqual(batches, [[1], [2], [4]]);
});

test('at most 2,000 items wait, and one more is refused', async () => {
  const { batcher, end } = createManual();
  const inFlight = await startTwo(batcher);

  const waiting = Array.from({ length: 2000 }, (_, item) => batcher.run(item));
  await assert.rejects(batcher.run(2000), { name: 'service_unavailable' });
  await end(unavailable());
  await end(unavailable());

  const all = await Promise.allSettled([...inFlight, ...waiting]);
  assert.ok(all.every(({ status }) => status === 'rejected'));
});

async function startTwo(batcher: Batcher<number, number>): Promise<Promise<number>[]> {
  const first = batcher.run(1);
  await nextTurn();
  const second = batcher.run(2);
  await nextTurn();
  return [first, second];
}
