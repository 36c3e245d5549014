import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MariadbPools } from './pools.js';

const poolLifeMs = 1_800_000;

/** Creates pools without connections, which only record that they were ended. */
function createPools() {
  const time = { now: 0 };
  const isEnded: boolean[] = [];
  const open = () => {
    const number = isEnded.push(false) - 1;
    const end = async () => {
      isEnded[number] = true;
    };
    return { number, end };
  };
  const pools = new MariadbPools(open, () => time.now);
  const getNumber = () => pools.use(async ({ number }) => number);
  return { pools, time, isEnded, getNumber };
}

/** Runs work on the current pool. The work ends when `finish` is called. */
function startWork(pools: ReturnType<typeof createPools>['pools']) {
  let finish = () => {};
  const working = pools.use(
    () =>
      new Promise<void>((resolve) => {
        finish = resolve;
      }),
  );
  return { working, finish: () => finish() };
}

test('a pool is replaced after half an hour, and ended at once if no work is running on it', async () => {
  const { time, isEnded, getNumber } = createPools();

  time.now = poolLifeMs;
  assert.equal(await getNumber(), 0);
  time.now += 1;

  assert.equal(await getNumber(), 1);
  assert.deepEqual(isEnded, [true, false]);
});

test('a replaced pool is ended when the last work on it has finished', async () => {
  const { pools, time, isEnded, getNumber } = createPools();
  const [first, second] = [startWork(pools), startWork(pools)];
  time.now = poolLifeMs + 1;

  assert.equal(await getNumber(), 1);
  first.finish();
  await first.working;
  assert.deepEqual(isEnded, [false, false]);
  second.finish();
  await second.working;

  assert.deepEqual(isEnded, [true, false]);
});

test('a pool with unusable connections is replaced at most once a second', async () => {
  const { pools, time, getNumber } = createPools();

  time.now = 1000;
  pools.replaceUnusable();
  assert.equal(await getNumber(), 0);
  time.now = 1001;
  pools.replaceUnusable();
  pools.replaceUnusable();

  assert.equal(await getNumber(), 1);
});

test('close() ends all pools, and none is opened afterwards', async () => {
  const { pools, time, isEnded } = createPools();
  const { working, finish } = startWork(pools);
  time.now = 1001;
  pools.replaceUnusable();

  await pools.close();
  time.now += 1001;
  pools.replaceUnusable();

  assert.deepEqual(isEnded, [true, true]);
  finish();
  await working;
});
