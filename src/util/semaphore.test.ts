import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Turns } from './semaphore.js';

/** Work that ends when it is told to. */
function heldWork() {
  const { promise, resolve, reject } = promiseParts();
  const held = { hasBegun: false, resolve, reject };
  const work = () => {
    held.hasBegun = true;
    return promise;
  };
  return Object.assign(held, { work });
}

function promiseParts() {
  let resolve = () => {};
  let reject = (_error: Error) => {};
  const promise = new Promise<void>((good, bad) => {
    resolve = good;
    reject = bad;
  });
  return { promise, resolve, reject };
}

const settled = () => new Promise((resolve) => setImmediate(resolve));

test('two at a time begin, the others in the order in which they came', async () => {
  const turns = new Turns(2);
  const jobs = Array.from({ length: 4 }, heldWork);
  const done = jobs.map(({ work }) => turns.take(work));
  const begun = () => jobs.map(({ hasBegun }) => hasBegun);

  await settled();
  assert.deepEqual(begun(), [true, true, false, false]);
  jobs[1]?.resolve();
  await settled();
  assert.deepEqual(begun(), [true, true, true, false]);
  for (const { resolve } of jobs) resolve();

  await Promise.all(done);
  assert.deepEqual(begun(), [true, true, true, true]);
});

test('work that fails hands its turn on, and its error to who asked', async () => {
  const turns = new Turns(1);
  const [bad, good] = [heldWork(), heldWork()];
  const asked = turns.take(bad.work);
  const next = turns.take(good.work);
  bad.reject(new Error('away'));
  good.resolve();

  await assert.rejects(asked, /away/);
  await next;
});

test('when all is done, a turn is free again', async () => {
  const turns = new Turns(1);
  for (let time = 0; time < 3; time += 1) {
    assert.equal(await turns.take(() => Promise.resolve(time)), time);
  }
});
