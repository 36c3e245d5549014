import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KeyRates } from './key-rates.js';

function createRates() {
  const time = { now: 1000 };
  return { time, rates: new KeyRates(() => time.now) };
}

const rate = { count: 3, perMs: 3000 };

test('a key may send as many requests at once as its rate says, then one per interval', () => {
  const { time, rates } = createRates();
  const key = { id: 'a', rate };

  assert.deepEqual(
    [1, 2, 3, 4].map(() => rates.take(key)),
    [0, 0, 0, 1000],
  );
  time.now += 999;
  assert.equal(rates.take(key), 1);
  time.now += 1;

  assert.deepEqual([rates.take(key), rates.take(key)], [0, 1000]);
});

test('keys have separate rates, and a key without a rate is not limited', () => {
  const { rates } = createRates();
  for (let count = 0; count < 4; count += 1) rates.take({ id: 'a', rate });

  assert.equal(rates.take({ id: 'b', rate }), 0);
  for (let count = 0; count < 100; count += 1)
    assert.equal(rates.take({ id: 'c', rate: undefined }), 0);
});

test('a changed rate applies from the next request on', () => {
  const { rates } = createRates();
  for (let count = 0; count < 4; count += 1) rates.take({ id: 'a', rate });

  const wider = { id: 'a', rate: { count: 5, perMs: 3000 } };

  assert.deepEqual(
    [1, 2, 3, 4, 5, 6].map(() => rates.take(wider)),
    [0, 0, 0, 0, 0, 600],
  );
});
