import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Semaphore } from './semaphore.js';

/** Creates work that ends when the test resolves or rejects it. */
function createHeldWork() {
  const { promise, resolve, reject } = createDeferred();
  const held = { hasBegun: false, resolve, reject };
  const work = () => {
    held.hasBegun = true;
    return promise;
  };
  return Object.assign(held, { work });
}

function createDeferred() {
  let resolve = () => {};
  let reject = (_error: Error) => {};
  const promise = new Promise<void>((resolvePromise, rejectPromise) => {
    resolve = resolvePromise;
    reject = rejectPromise;
  });
  return { promise, resolve, reject };
}

const nextTurn = () => new Promise((resolve) => setImmediate(resolve));

test('a semaphore with two permits runs two jobs at a time, and starts the others in arrival order', async () => {
  const semaphore = new Semaphore(2);
  const jobs = Array.from({ length: 4 }, createHeldWork);
  const done = jobs.map(({ work }) => semaphore.run(work));
  const started = () => jobs.map(({ hasBegun }) => hasBegun);

  await nextTurn();
  assert.deepEqual(started(), [true, true, false, false]);
  jobs[1]?.resolve();
  await nextTurn();
  assert.deepEqual(started(), [true, true, true, false]);
  for (const { resolve } of jobs) resolve();

  await Promise.all(done);
  assert.deepEqual(started(), [true, true, true, true]);
});

test('work that fails releases its permit and rejects its caller', async () => {
  const semaphore = new Semaphore(1);
  const [failingWork, nextWork] = [createHeldWork(), createHeldWork()];
  const failing = semaphore.run(failingWork.work);
  const next = semaphore.run(nextWork.work);
  failingWork.reject(new Error('unavailable'));
  nextWork.resolve();

  await assert.rejects(failing, /unavailable/);
  await next;
});

test('a permit is available again when all work is done', async () => {
  const semaphore = new Semaphore(1);
  for (let result = 0; result < 3; result += 1) {
    assert.equal(await semaphore.run(() => Promise.resolve(result)), result);
  }
});
