import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inSlices } from './in-slices.js';

const sizes = [
  [0, [0]],
  [3, [3]],
  [4, [3, 4]],
  [6, [3, 6]],
  [7, [3, 6, 7]],
] as const;

test('items are processed in order, at most one slice per turn of the event loop', async () => {
  for (const [count, doneAfterTurn] of sizes) {
    const items = Array.from({ length: count }, (_, index) => index);
    const done: number[] = [];
    const counts: number[] = [];

    const rest = inSlices(items, 3, (item) => done.push(item));
    counts.push(done.length);
    while (done.length < count) {
      await new Promise((resolve) => setImmediate(resolve));
      counts.push(done.length);
    }
    await rest;

    assert.deepEqual(counts, doneAfterTurn);
    assert.equal(rest === undefined, count <= 3);
    assert.deepEqual(done, items);
  }
});
