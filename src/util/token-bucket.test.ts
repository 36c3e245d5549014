import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatRate, parseRate, TokenBucket } from './token-bucket.js';

function createBucket({ keysMax = 100 } = {}) {
  const time = { now: 1000 };
  const bucket = new TokenBucket({ count: 30, perMs: 60_000, keysMax, clock: () => time.now });
  return { bucket, time };
}

test('a burst of `count` takes succeeds, and the next take has to wait for one interval', () => {
  const { bucket, time } = createBucket();

  const waits = Array.from({ length: 31 }, () => bucket.take('a'));

  assert.deepEqual(waits, [...Array<number>(30).fill(0), 2000]);
  time.now += 1999;
  assert.equal(bucket.take('a'), 1);
  time.now += 1;
  assert.equal(bucket.take('a'), 0);
  assert.equal(bucket.take('a'), 2000);
});

for (const count of [1, 3, 7, 30, 1000]) {
  test(`exactly ${count} of ${count + 1} takes succeed at once, at any fractional clock time`, () => {
    for (let now = 1000; now < 1_000_000_000; now = now * 1.37 + 0.1) {
      const bucket = new TokenBucket({ count, perMs: 3_600_000, keysMax: 9, clock: () => now });

      const waits = Array.from({ length: count + 1 }, () => bucket.take('a'));

      assert.equal(
        waits.findIndex((waitMs) => waitMs > 0),
        count,
        `at ${now}`,
      );
    }
  });
}

test('a peek returns the wait of the next take, and takes nothing', () => {
  const { bucket, time } = createBucket();

  for (let count = 0; count < 31; count += 1) assert.equal(bucket.peek('a'), 0);
  for (let count = 0; count < 30; count += 1) bucket.take('a');

  assert.deepEqual([bucket.peek('a'), bucket.peek('a'), bucket.take('a')], [2000, 2000, 2000]);
  time.now += 2000;
  assert.deepEqual([bucket.peek('a'), bucket.take('a'), bucket.peek('a')], [0, 0, 2000]);
});

test('a token that is given back can be taken again', () => {
  const { bucket } = createBucket();
  for (let count = 0; count < 30; count += 1) bucket.take('a');

  bucket.giveBack('a');
  bucket.giveBack('unknown');

  assert.equal(bucket.take('a'), 0);
  assert.equal(bucket.take('a'), 2000);
});

test('giving back more tokens than were taken does not enlarge the burst', () => {
  const { bucket } = createBucket();
  bucket.take('a');
  for (let count = 0; count < 10; count += 1) bucket.giveBack('a');

  const waits = Array.from({ length: 31 }, () => bucket.take('a'));

  assert.deepEqual(waits, [...Array<number>(30).fill(0), 2000]);
});

test('each key has its own bucket', () => {
  const { bucket } = createBucket();
  for (let count = 0; count < 40; count += 1) bucket.take('a');

  assert.equal(bucket.take('b'), 0);
});

test('after the full period the full count is available again', () => {
  const { bucket, time } = createBucket();
  for (let count = 0; count < 40; count += 1) bucket.take('a');

  time.now += 60_000;

  for (let count = 0; count < 30; count += 1) assert.equal(bucket.take('a'), 0);
  assert.ok(bucket.take('a') > 0);
});

test('a clock set back by an hour does not block a key for an hour', () => {
  const { bucket, time } = createBucket();
  for (let count = 0; count < 40; count += 1) bucket.take('a');

  time.now -= 3_600_000;

  assert.ok(bucket.take('a') <= 2000);
});

test('over the maximum number of keys, the least recently used key is dropped', () => {
  const { bucket } = createBucket({ keysMax: 2 });
  for (let count = 0; count < 40; count += 1) bucket.take('a');
  bucket.take('b');
  bucket.take('a');

  bucket.take('c');

  assert.ok(bucket.take('a') > 0, 'a was used recently');
});

test('a rate is a count and milliseconds, each from 1 to 999,999,999', () => {
  for (const text of ['1/1', '100/1000', '999999999/999999999']) {
    const rate = parseRate(text);
    assert.ok(rate !== undefined);
    assert.equal(formatRate(rate), text);
  }
  const invalid = ['', '100', '100/', '/1000', '0/1000', '100/0', '1/1/1', ' 1/1', '1 / 1'];
  for (const text of [...invalid, '1.5/1', '-1/1', '01/1', '1e3/1', '1000000000/1', '1/1000000000'])
    assert.equal(parseRate(text), undefined, text);
});
