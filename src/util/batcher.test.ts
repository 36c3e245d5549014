import assert from 'node:assert/strict';
import { test } from 'node:test';
import { until } from '../../test/support/until.js';
import { Failure } from '../errors.js';
import { Batcher } from './batcher.js';

const unavailable = () => new Failure('service_unavailable', 'away');

/** Notes what it is asked to do, and does it when it is told to. */
function createManual({ isAtOnce: isImmediate = false } = {}) {
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
  /** Ends the batch that is under way, once it is. */
  const end = async (cause?: unknown) => {
    await until(() => ends.length > 0);
    ends.shift()?.(cause);
  };
  return { batcher, batches, end };
}

const nextTurn = () => new Promise<void>((resolve) => setImmediate(resolve));

test('what is asked for in one turn is one batch, and each has its own result', async () => {
  const { batcher, batches, end } = createManual();

  const asked = [1, 2, 3].map((item) => batcher.run(item));
  assert.deepEqual(batches, []);
  await end();

  assert.deepEqual(await Promise.all(asked), [10, 20, 30]);
  assert.deepEqual(batches, [[1, 2, 3]]);
});

test('where nothing is saved by waiting, the first two begin at once', async () => {
  const { batcher, batches, end } = createManual({ isAtOnce: true });

  const asked = [1, 2, 3, 4].map((item) => batcher.run(item));
  assert.deepEqual(batches, [[1], [2]]);
  for (let count = 0; count < 3; count += 1) await end();

  assert.deepEqual(await Promise.all(asked), [10, 20, 30, 40]);
  assert.deepEqual(batches, [[1], [2], [3, 4]]);
});

test('what is asked for while two batches are under way waits for the next', async () => {
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

test('a batch has 32 items, and one more begins the next', async () => {
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

test('one that cannot be done leaves the others alone', async () => {
  const batches: (readonly number[])[] = [];
  const batcher = new Batcher<number, number>(
    async (items) => {
      batches.push(items);
      if (items.includes(2)) throw new Error('not 2');
      return items;
    },
    { isImmediate: false },
  );

  const asked = await Promise.allSettled([1, 2, 3].map((item) => batcher.run(item)));

  assert.deepEqual(
    asked.map((one) => (one.status === 'fulfilled' ? one.value : String(one.reason))),
    [1, 'Error: not 2', 3],
  );
  assert.deepEqual(batches, [[1, 2, 3], [1], [2], [3]]);
});

test('a store that is away is asked once for all that wait, and then anew', async () => {
  const { batcher, batches, end } = createManual();

  const underWay = await startTwo(batcher);
  const waiting = batcher.run(3);
  await end(unavailable());
  await assert.rejects(waiting, { name: 'service_unavailable' });
  await end(unavailable());
  const asked = await Promise.allSettled(underWay);
  assert.ok(asked.every(({ status }) => status === 'rejected'));

  const later = batcher.run(4);
  await end();

  assert.equal(await later, 40);
  assert.deepEqual(batches, [[1], [2], [4]]);
});

test('2,000 wait, and one more is refused', async () => {
  const { batcher, end } = createManual();
  const underWay = await startTwo(batcher);

  const waiting = Array.from({ length: 2000 }, (_, item) => batcher.run(item));
  await assert.rejects(batcher.run(2000), { name: 'service_unavailable' });
  await end(unavailable());
  await end(unavailable());

  const all = await Promise.allSettled([...underWay, ...waiting]);
  assert.ok(all.every(({ status }) => status === 'rejected'));
});

async function startTwo(batcher: Batcher<number, number>): Promise<Promise<number>[]> {
  const first = batcher.run(1);
  await nextTurn();
  const second = batcher.run(2);
  await nextTurn();
  return [first, second];
}
