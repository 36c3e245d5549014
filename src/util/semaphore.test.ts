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
  const promise = new Promise<void>((good, bad) => {
    resolve = good;
    reject = bad;
  });
  return { promise, resolve, reject };
}

const nextTick = () => new Promise((resolve) => setImmediate(resolve));

test('a semaphore of two runs two at a time, the rest in arrival order', async () => {
  const semaphore = new Semaphore(2);
  const jobs = Array.from({ length: 4 }, createHeldWork);
  const done = jobs.map(({ work }) => semaphore.run(work));
  const started = () => jobs.map(({ hasBegun }) => hasBegun);

  await nextTick();
  assert.deepEqual(started(), [true, true, false, false]);
  jobs[1]?.resolve();
  await nextTick();
  assert.deepEqual(started(), [true, true, true, false]);
  for (const { resolve } of jobs) resolve();

  await Promise.all(done);
  assert.deepEqual(started(), [true, true, true, true]);
});

test('failing work releases its permit and rejects its caller', async () => {
  const semaphore = new Semaphore(1);
  const [bad, good] = [createHeldWork(), createHeldWork()];
  const failing = semaphore.run(bad.work);
  const next = semaphore.run(good.work);
  bad.reject(new Error('unavailable'));
  good.resolve();

  await assert.rejects(failing, /unavailable/);
  await next;
});

test('a permit is available again when all work is done', async () => {
  const semaphore = new Semaphore(1);
  for (let time = 0; time < 3; time += 1) {
    assert.equal(await semaphore.run(() => Promise.resolve(time)), time);
  }
});
