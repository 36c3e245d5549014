import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Gate, GateShut, type Permit } from './attempt-limiter.js';

const minute = 60_000;

function gateOf({ keysMax = 1000 } = {}) {
  const time = { now: 0 };
  const gate = new Gate({
    freeFailures: 5,
    delayMaxMs: 15 * minute,
    hardStop: { failures: 1000, delayMs: 60 * minute },
    forgetAfterMs: 60 * minute,
    keysMax,
    clock: () => time.now,
  });
  return { gate, time };
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

test('of a hundred wrong guesses in parallel five are tried', async () => {
  const { gate } = gateOf();
  let tried = 0;
  const guess = async () => {
    const permit = await gate.enter('a');
    tried += 1;
    await turn(); // The hash.
    permit.done('wrong');
  };

  const results = await Promise.allSettled(Array.from({ length: 100 }, guess));

  const refused = results.filter((result) => result.status === 'rejected');
  assert.equal(tried, 5);
  assert.equal(refused.length, 95);
  assert.ok(refused.every(({ reason }) => reason instanceof GateShut && reason.waitMs === 1000));
});

test('thirty right guesses in parallel all pass', async () => {
  const { gate } = gateOf();
  let underWay = 0;
  let most = 0;
  const guess = async () => {
    const permit = await gate.enter('a');
    underWay += 1;
    most = Math.max(most, underWay);
    await turn();
    underWay -= 1;
    permit.done('right');
  };

  await Promise.all(Array.from({ length: 30 }, guess));

  assert.equal(most, 5);
  assert.equal(gate.size, 0);
});

test('a hundred wrong guesses in turn take more than 21 hours', async () => {
  const { gate, time } = gateOf();
  let count = 0;
  while (count < 100) {
    try {
      (await gate.enter('a')).done('wrong');
      count += 1;
    } catch (shut) {
      assert.ok(shut instanceof GateShut);
      time.now += shut.waitMs;
    }
  }

  const hours = time.now / (60 * minute);
  assert.ok(hours > 21 && hours < 22, `${hours} h`);
});

test('the wait doubles from one second and stops at the longest', async () => {
  const { gate, time } = gateOf();
  const waits: number[] = [];
  while (waits.length < 12) {
    const permit = await gate.enter('a');
    if (!permit.done('wrong')) continue;
    await assert.rejects(gate.enter('a'), (shut: GateShut) => {
      waits.push(shut.waitMs / 1000);
      time.now += shut.waitMs;
      return true;
    });
  }

  assert.deepEqual(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]);
});

test('a shut gate opens to the millisecond', async () => {
  const { gate, time } = gateOf();
  for (let count = 0; count < 5; count += 1) (await gate.enter('a')).done('wrong');

  time.now += 999;
  await assert.rejects(gate.enter('a'), { waitMs: 1 });
  time.now += 1;
  (await gate.enter('a')).done('right');

  assert.equal(gate.size, 0);
});

test('once the free ones are used up, one guess at a time is tried', async () => {
  const { gate, time } = gateOf();
  for (let count = 0; count < 5; count += 1) (await gate.enter('a')).done('wrong');
  time.now += 1000;

  const first = await gate.enter('a');
  const second = gate.enter('a');

  assert.equal(first.failures, 5);
  assert.equal(gate.isOpen('a'), false);
  first.done('right');
  assert.equal((await second).failures, 0);
});

test('a guess that was never looked at costs nothing, however often', async () => {
  const { gate } = gateOf();

  for (let count = 0; count < 100; count += 1) (await gate.enter('a')).done('unknown');

  assert.equal(gate.size, 0);
});

test('a permit given back twice counts once', async () => {
  const { gate } = gateOf();
  const permits: Permit[] = [];
  for (let count = 0; count < 5; count += 1) permits.push(await gate.enter('a'));
  const waiting = gate.enter('a');

  permits[0]?.done('unknown');
  permits[0]?.done('unknown');
  permits[0]?.done('right');
  await waiting;

  assert.equal(gate.isOpen('a'), false); // Five are under way still.
});

test('at most 32 wait; later ones are refused at once', async () => {
  const { gate } = gateOf();
  const permits: Permit[] = [];
  for (let count = 0; count < 5; count += 1) permits.push(await gate.enter('a'));
  const waiting = Array.from({ length: 32 }, () => gate.enter('a'));

  await assert.rejects(gate.enter('a'), GateShut);

  for (const permit of permits) permit.done('right');
  for (const permit of waiting) (await permit).done('right');
  assert.equal(gate.size, 0);
});

test('who leaves while waiting holds nobody up', async () => {
  const { gate } = gateOf();
  const permits: Permit[] = [];
  for (let count = 0; count < 5; count += 1) permits.push(await gate.enter('a'));
  const controller = new AbortController();
  const leaving = gate.enter('a', controller.signal);
  const staying = gate.enter('a');

  controller.abort();
  await assert.rejects(leaving, { name: 'AbortError' });
  permits[0]?.done('unknown');
  (await staying).done('unknown');
  for (const permit of permits) permit.done('unknown');

  assert.equal(gate.size, 0);
  await assert.rejects(gate.enter('a', controller.signal), { name: 'AbortError' });
  assert.equal(gate.size, 0);
});

test('an hour after the last wrong guess the key starts anew', async () => {
  const { gate, time } = gateOf();
  for (let count = 0; count < 4; count += 1) (await gate.enter('a')).done('wrong');

  time.now += 60 * minute - 1;
  const before = await gate.enter('a');
  before.done('unknown');
  time.now += 1;
  const after = await gate.enter('a');
  after.done('unknown');

  assert.deepEqual([before.failures, after.failures], [4, 0]);
});

test('a clock set back locks nobody out for longer than the longest delay', async () => {
  const { gate, time } = gateOf();
  for (let count = 0; count < 5; count += 1) (await gate.enter('a')).done('wrong');

  time.now -= 100 * 60 * minute;

  await assert.rejects(gate.enter('a'), (shut: GateShut) => shut.waitMs <= 60 * minute);
});

test('memory is bounded, and a guess under way is not forgotten', async () => {
  const { gate } = gateOf({ keysMax: 10 });
  const pending = await gate.enter('pending');

  for (let count = 0; count < 1000; count += 1) (await gate.enter(`${count}`)).done('wrong');

  assert.equal(gate.size, 10);
  for (let count = 0; count < 4; count += 1) await gate.enter('pending');
  assert.equal(gate.isOpen('pending'), false);
  pending.done('wrong');
});
