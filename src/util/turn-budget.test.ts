import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { TurnBudget } from './turn-budget.js';

const sizes = [
  [0, [0]],
  [3, [3]],
  [4, [3, 4]],
  [6, [3, 6]],
  [7, [3, 6, 7]],
] as const;

test('items are processed in order, at most as many per turn of the event loop as the budget allows', async () => {
  for (const [count, doneAfterTurn] of sizes) {
    const items = Array.from({ length: count }, (_, index) => index);
    const done: number[] = [];
    const counts: number[] = [];
    const budget = new TurnBudget(3);

    const rest = budget.run(items, (item) => done.push(item));
    counts.push(done.length);
    while (done.length < count) {
      await nextTurn();
      counts.push(done.length);
    }
    await rest;

    assert.deepEqual(counts, doneAfterTurn);
    assert.equal(rest === undefined, count <= 3);
    assert.deepEqual(done, items);
  }
});

test('the calls of one turn share its budget, and a call without items does not wait', async () => {
  const budget = new TurnBudget(3);
  const done: string[] = [];
  const work = (item: string) => done.push(item);

  const pending = [['a', 'b'], ['c', 'd'], [], ['e', 'f', 'g']].map((items) =>
    budget.run(items, work),
  );

  const counts = [done.length];
  while (done.length < 7) {
    await nextTurn();
    counts.push(done.length);
  }
  assert.deepEqual(counts, [3, 6, 7]);
  assert.deepEqual(
    pending.map((each) => each === undefined),
    [true, false, true, false],
  );
  await Promise.all(pending);
});

test('an error of the work is thrown in the first turn, and rejects the promise in a later one', async () => {
  const budget = new TurnBudget(2);
  const done: number[] = [];
  const failAt = (bad: number) => (item: number) => {
    if (item === bad) throw new Error(`at ${item}`);
    done.push(item);
  };

  assert.throws(() => budget.run([1, 2, 3], failAt(2)), /at 2/);
  await nextTurn();
  const later = budget.run([4, 5, 6, 7, 8, 9], failAt(7));

  await assert.rejects(async () => later, /at 7/);
  assert.deepEqual(done, [1, 4, 5, 6]);
});
