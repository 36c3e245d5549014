import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConcurrencyLimiter } from './concurrency-limiter.js';

function createLimiter({ requests = 10, background = 10, waitMs = 1000 } = {}) {
  const inFlightMax = { requests, background };
  return new ConcurrencyLimiter({ inFlightMax, transactionsMax: 1, waitMs });
}

/** Creates work that ends when `end` is called. */
function createHeldWork() {
  let end = (): void => undefined;
  const ended = new Promise<string>((resolve) => {
    end = () => resolve('done');
  });
  return { work: () => ended, end };
}

test('work over the in-flight limit is refused until other work has ended', async () => {
  const limiter = createLimiter({ requests: 2 });
  const first = createHeldWork();
  const second = createHeldWork();
  const running = [limiter.run(first.work), limiter.run(second.work)];

  await assert.rejects(limiter.run(first.work), { name: 'service_unavailable' });
  first.end();
  await running[0];

  assert.equal(await limiter.run(async () => 'taken'), 'taken');
  second.end();
  await running[1];
});

test('transactions run in arrival order, even after one fails', async () => {
  const limiter = createLimiter();
  const order: string[] = [];
  const first = createHeldWork();
  const failing = limiter.runTransaction(async () => {
    await first.work();
    throw new Error('failed');
  });
  const second = limiter.runTransaction(async () => order.push('second'));
  const third = limiter.runTransaction(async () => order.push('third'));
  const beside = limiter.run(async () => order.push('beside'));

  await beside;
  first.end();
  await assert.rejects(failing, /failed/);
  await Promise.all([second, third]);

  assert.deepEqual(order, ['beside', 'second', 'third']);
});

test('background work is admitted while requests are at their limit, up to its own limit', async () => {
  const limiter = createLimiter({ requests: 2, background: 1 });
  const held = createHeldWork();
  const running = [limiter.run(held.work), limiter.runTransaction(held.work)];
  await assert.rejects(limiter.run(held.work), { name: 'service_unavailable' });

  assert.equal(await limiter.run(async () => 'taken', 'background'), 'taken');
  running.push(limiter.run(held.work, 'background'));
  await assert.rejects(limiter.run(held.work, 'background'), { name: 'service_unavailable' });

  held.end();
  await Promise.all(running);
});

test('waiting background transactions and requests take turns, background first', async () => {
  const limiter = createLimiter();
  const order: string[] = [];
  const first = createHeldWork();
  const running = [
    limiter.runTransaction(first.work),
    limiter.runTransaction(async () => order.push('request')),
    limiter.runTransaction(async () => order.push('second request')),
    limiter.runTransaction(async () => order.push('background'), 'background'),
    limiter.runTransaction(async () => order.push('second background'), 'background'),
  ];

  first.end();
  await Promise.all(running);

  assert.deepEqual(order, ['background', 'request', 'second background', 'second request']);
});

test('a transaction that waits too long is refused and never starts', async () => {
  const limiter = createLimiter({ waitMs: 20 });
  const first = createHeldWork();
  const running = limiter.runTransaction(first.work);
  let hasBegun = false;

  const waiting = limiter.runTransaction(async () => {
    hasBegun = true;
  });

  await assert.rejects(waiting, { name: 'service_unavailable' });
  first.end();
  await running;
  assert.equal(await limiter.runTransaction(async () => 'next'), 'next');
  assert.equal(hasBegun, false);
});

test('close waits for running and queued work and refuses new work', async () => {
  const limiter = createLimiter();
  const first = createHeldWork();
  const running = limiter.runTransaction(first.work);
  const waiting = limiter.runTransaction(async () => 'after');

  const closing = limiter.close();
  await assert.rejects(
    limiter.run(async () => 1),
    /Cannot use database: it is closed/,
  );
  let isClosed = false;
  void closing.then(() => {
    isClosed = true;
  });
  await new Promise(setImmediate);
  assert.equal(isClosed, false);
  first.end();
  await closing;
  await limiter.close();

  assert.deepEqual(await Promise.all([running, waiting]), ['done', 'after']);
});
