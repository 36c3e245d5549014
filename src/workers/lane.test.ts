import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LaneQueue } from './lane.js';

test('the estimated wait is divided by the number of slots of all threads', () => {
  const lane = new LaneQueue({ jobs: [], perThreadMax: 2, queueMax: 10, waitMaxMs: 1000 });
  const thread = {};
  lane.markStarted(thread);
  lane.markEnded(thread, 300);
  for (let count = 0; count < 6; count += 1) lane.enqueue({ owner: undefined });

  // 6 jobs of 300 ms in 2 slots per thread. Without a thread, one is assumed to start soon.
  const waits = [0, 1, 3].map((threads) => lane.estimatedWaitMs(threads));

  assert.deepEqual(waits, [900, 900, 300]);
});
