import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CrashHistory } from './crash-history.js';

test('the delay before a restart doubles with each crash of the last minute, up to 10 s', () => {
  let now = 0;
  const history = new CrashHistory(() => now, 100);

  const delays = Array.from({ length: 40 }, () => history.record());
  now += 60_000;

  assert.deepEqual(delays.slice(0, 9), [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
  assert.equal(delays.at(-1), 10_000);
  assert.equal(history.record(), 100);
  assert.equal(history.total, 41);
});
