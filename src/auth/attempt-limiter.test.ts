import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Attempt, AttemptLimiter, AttemptRefused } from './attempt-limiter.js';

const minute = 60_000;

function createLimiter({ keysMax = 1000 } = {}) {
  const time = { now: 0 };
  const limiter = new AttemptLimiter({
    failuresBeforeDelay: 5,
    delayMaxMs: 15 * minute,
    hardStop: { failures: 1000, delayMs: 60 * minute },
    forgetAfterMs: 60 * minute,
    keysMax,
    monotonicClock: () => time.now,
  });
  return { limiter, time };
}

const nextTurn = () => new Promise<void>((resolve) => setImmediate(resolve));

test('of a hundred parallel wrong passwords only five are verified', async () => {
  const { limiter } = createLimiter();
  let tried = 0;
  const guess = async () => {
    const attempt = await limiter.begin('a');
    tried += 1;
    await nextTurn(); // Stands for the hash.
    attempt.settle('wrong');
  };

  const results = await Promise.allSettled(Array.from({ length: 100 }, guess));

  const refused = results.filter((result) => result.status === 'rejected');
  assert.equal(tried, 5);
  assert.equal(refused.length, 95);
  assert.ok(
    refused.every(({ reason }) => reason instanceof AttemptRefused && reason.waitMs === 1000),
  );
});

test('thirty parallel right passwords all succeed', async () => {
  const { limiter } = createLimiter();
  let running = 0;
  let concurrentMost = 0;
  const guess = async () => {
    const attempt = await limiter.begin('a');
    running += 1;
    concurrentMost = Math.max(concurrentMost, running);
    await nextTurn();
    running -= 1;
    attempt.settle('right');
  };

  await Promise.all(Array.from({ length: 30 }, guess));

  assert.equal(concurrentMost, 5);
  assert.equal(limiter.size, 0);
});

test('a hundred sequential wrong passwords take more than 21 hours', async () => {
  const { limiter, time } = createLimiter();
  let count = 0;
  for (let tries = 0; count < 100; tries += 1) {
    assert.ok(tries < 1000, `only ${count} attempts were admitted`);
    try {
      (await limiter.begin('a')).settle('wrong');
      count += 1;
    } catch (refusal) {
      assert.ok(refusal instanceof AttemptRefused);
      time.now += refusal.waitMs;
    }
  }

  const hours = time.now / (60 * minute);
  assert.ok(hours > 21 && hours < 22, `${hours} h`);
});

test('the delay doubles from one second up to the maximum', async () => {
  const { limiter, time } = createLimiter();
  const waits: number[] = [];
  for (let tries = 0; waits.length < 12; tries += 1) {
    assert.ok(tries < 1000, `only ${waits.length} attempts were delayed`);
    const attempt = await limiter.begin('a');
    if (!attempt.settle('wrong')) continue;
    await assert.rejects(limiter.begin('a'), (refusal: AttemptRefused) => {
      waits.push(refusal.waitMs / 1000);
      time.now += refusal.waitMs;
      return true;
    });
  }

  assert.deepEqual(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]);
});

test('a blocked key is unblocked exactly when its delay ends', async () => {
  const { limiter, time } = createLimiter();
  for (let count = 0; count < 5; count += 1) (await limiter.begin('a')).settle('wrong');

  time.now += 999;
  await assert.rejects(limiter.begin('a'), { waitMs: 1 });
  time.now += 1;
  (await limiter.begin('a')).settle('right');

  assert.equal(limiter.size, 0);
});

test('once delays have started, attempts are verified one at a time', async () => {
  const { limiter, time } = createLimiter();
  for (let count = 0; count < 5; count += 1) (await limiter.begin('a')).settle('wrong');
  time.now += 1000;

  const first = await limiter.begin('a');
  const second = limiter.begin('a');

  assert.equal(first.failures, 5);
  assert.equal(limiter.isAvailable('a'), false);
  first.settle('right');
  assert.equal((await second).failures, 0);
});

test('an attempt with outcome "unknown" is not counted', async () => {
  const { limiter } = createLimiter();

  for (let count = 0; count < 100; count += 1) (await limiter.begin('a')).settle('unknown');

  assert.equal(limiter.size, 0);
});

test('a permit that is released twice counts once', async () => {
  const { limiter } = createLimiter();
  const attempts: Attempt[] = [];
  for (let count = 0; count < 5; count += 1) attempts.push(await limiter.begin('a'));
  const waiting = limiter.begin('a');

  attempts[0]?.settle('unknown');
  attempts[0]?.settle('unknown');
  attempts[0]?.settle('right');
  await waiting;

  assert.equal(limiter.isAvailable('a'), false); // Five are still pending: the other four and `waiting`.
});

test('at most 32 attempts wait; further ones are rejected at once', async () => {
  const { limiter } = createLimiter();
  const attempts: Attempt[] = [];
  for (let count = 0; count < 5; count += 1) attempts.push(await limiter.begin('a'));
  const waitingAttempts = Array.from({ length: 32 }, () => limiter.begin('a'));

  await assert.rejects(limiter.begin('a'), AttemptRefused);

  for (const attempt of attempts) attempt.settle('right');
  for (const attempt of waitingAttempts) (await attempt).settle('right');
  assert.equal(limiter.size, 0);
});

test('an aborted waiting attempt does not block the others', async () => {
  const { limiter } = createLimiter();
  const attempts: Attempt[] = [];
  for (let count = 0; count < 5; count += 1) attempts.push(await limiter.begin('a'));
  const controller = new AbortController();
  const leaving = limiter.begin('a', controller.signal);
  const staying = limiter.begin('a');

  controller.abort();
  await assert.rejects(leaving, { name: 'AbortError' });
  attempts[0]?.settle('unknown');
  (await staying).settle('unknown');
  for (const attempt of attempts) attempt.settle('unknown');

  assert.equal(limiter.size, 0);
  await assert.rejects(limiter.begin('a', controller.signal), { name: 'AbortError' });
  assert.equal(limiter.size, 0);
});

test('the failures of a key are reset an hour after the last one', async () => {
  const { limiter, time } = createLimiter();
  for (let count = 0; count < 4; count += 1) (await limiter.begin('a')).settle('wrong');

  time.now += 60 * minute - 1;
  const before = await limiter.begin('a');
  before.settle('unknown');
  time.now += 1;
  const after = await limiter.begin('a');
  after.settle('unknown');

  assert.deepEqual([before.failures, after.failures], [4, 0]);
});

test('a clock set back blocks a key for at most the longest delay', async () => {
  const { limiter, time } = createLimiter();
  for (let count = 0; count < 5; count += 1) (await limiter.begin('a')).settle('wrong');

  time.now -= 100 * 60 * minute;

  await assert.rejects(
    limiter.begin('a'),
    (refusal: AttemptRefused) => refusal.waitMs <= 60 * minute,
  );
});

test('the number of keys is bounded, and a key with a pending attempt is not evicted', async () => {
  const { limiter } = createLimiter({ keysMax: 10 });
  const pending = await limiter.begin('pending');

  for (let count = 0; count < 1000; count += 1) (await limiter.begin(`${count}`)).settle('wrong');

  assert.equal(limiter.size, 10);
  for (let count = 0; count < 4; count += 1) await limiter.begin('pending');
  assert.equal(limiter.isAvailable('pending'), false);
  pending.settle('wrong');
});
