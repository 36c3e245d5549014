import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RecentCall } from './recent-call.js';

function createRecentCall(call: (count: number) => Promise<number>) {
  const time = { now: 0 };
  const started: number[] = [];
  const recent = new RecentCall(
    () => {
      started.push(time.now);
      return call(started.length);
    },
    { maxAgeMs: 1000, monotonicClock: () => time.now },
  );
  return { recent, time, started };
}

test('concurrent and repeated requests share a call until its maximum age', async () => {
  const { recent, time, started } = createRecentCall(async (count) => count);

  assert.deepEqual(await Promise.all([recent.run(), recent.run()]), [1, 1]);
  time.now = 999;
  assert.equal(await recent.run(), 1);
  time.now = 1000;
  assert.equal(await recent.run(), 2);

  assert.deepEqual(started, [0, 1000]);
});

test('a failed call is shared for as long as a successful one', async () => {
  const { recent, time } = createRecentCall(async (count) => {
    if (count === 1) throw new Error('unavailable');
    return count;
  });

  await assert.rejects(recent.run(), /unavailable/);
  await assert.rejects(recent.run(), /unavailable/);
  time.now = 1000;

  assert.equal(await recent.run(), 2);
});

test('a call that hangs does not delay the next one', async () => {
  const { recent, time } = createRecentCall((count) =>
    count === 1 ? new Promise(() => {}) : Promise.resolve(count),
  );

  void recent.run();
  time.now = 1000;

  assert.equal(await recent.run(), 2);
});
