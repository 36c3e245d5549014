import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Admission } from './concurrency-limiter.js';

/** Work that ends when it is told to. */
function held() {
  let end = (): void => undefined;
  const ended = new Promise<string>((resolve) => {
    end = () => resolve('done');
  });
  return { work: () => ended, end };
}

test('as much as the maximum is under way, one more is refused, and later taken', async () => {
  const admission = new Admission({ inFlightMax: 2, transactionsMax: 1, waitMs: 1000 });
  const first = held();
  const second = held();
  const running = [admission.run(first.work), admission.run(second.work)];

  await assert.rejects(admission.run(first.work), { name: 'service_unavailable' });
  first.end();
  await running[0];

  assert.equal(await admission.run(async () => 'taken'), 'taken');
  second.end();
  await running[1];
});

test('transactions take turns in order, also after one that failed', async () => {
  const admission = new Admission({ inFlightMax: 10, transactionsMax: 1, waitMs: 1000 });
  const order: string[] = [];
  const first = held();
  const failing = admission.transact(async () => {
    await first.work();
    throw new Error('failed');
  });
  const second = admission.transact(async () => order.push('second'));
  const third = admission.transact(async () => order.push('third'));
  const beside = admission.run(async () => order.push('beside'));

  await beside;
  first.end();
  await assert.rejects(failing, /failed/);
  await Promise.all([second, third]);

  assert.deepEqual(order, ['beside', 'second', 'third']);
});

test('a transaction whose turn does not come is refused, and never begins', async () => {
  const admission = new Admission({ inFlightMax: 10, transactionsMax: 1, waitMs: 20 });
  const first = held();
  const running = admission.transact(first.work);
  let hasBegun = false;

  const waiting = admission.transact(async () => {
    hasBegun = true;
  });

  await assert.rejects(waiting, { name: 'service_unavailable' });
  first.end();
  await running;
  assert.equal(await admission.transact(async () => 'next'), 'next');
  assert.equal(hasBegun, false);
});

test('closing waits for what is under way and for what waits, and refuses the rest', async () => {
  const admission = new Admission({ inFlightMax: 10, transactionsMax: 1, waitMs: 1000 });
  const first = held();
  const running = admission.transact(first.work);
  const waiting = admission.transact(async () => 'after');

  const closing = admission.close();
  await assert.rejects(
    admission.run(async () => 1),
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
  await admission.close();

  assert.deepEqual(await Promise.all([running, waiting]), ['done', 'after']);
});
