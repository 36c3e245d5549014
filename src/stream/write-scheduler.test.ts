import assert from 'node:assert/strict';
import { test } from 'node:test';
import { WriteScheduler } from './write-scheduler.js';

const nextTurn = () => new Promise((resolve) => setImmediate(resolve));

/** Creates a scheduler whose clock advances only by the `tookMs` of each flush. */
function createScheduler() {
  const state = { now: 0, written: [] as string[] };
  const scheduler = new WriteScheduler(() => state.now);
  const createStream = (name: string, { tookMs = 0, frames = 1, onFlush = () => {} } = {}) => ({
    flush() {
      state.written.push(name);
      state.now += tookMs;
      onFlush();
      return frames;
    },
  });
  return { state, scheduler, createStream };
}

test('each stream is flushed once at the end of the event-loop iteration', async () => {
  const { state, scheduler, createStream } = createScheduler();
  const [a, b] = [createStream('a'), createStream('b')];
  for (const stream of [a, b, a]) scheduler.add(stream);
  assert.deepEqual(state.written, []);

  await nextTurn();

  assert.deepEqual(state.written, ['a', 'b']);
});

test('frames added during a flush cycle are written in the next cycle', async () => {
  const { state, scheduler, createStream } = createScheduler();
  scheduler.add(createStream('a', { onFlush: () => scheduler.add(createStream('late')) }));
  scheduler.add(createStream('b'));

  await nextTurn();
  assert.deepEqual(state.written, ['a', 'b']);
  await nextTurn();
  assert.deepEqual(state.written, ['a', 'b', 'late']);
});

test('a flush cycle yields to the event loop after every 128 streams', async () => {
  const { state, scheduler, createStream } = createScheduler();
  for (let index = 0; index < 300; index += 1) scheduler.add(createStream(`${index}`));

  for (const written of [128, 256, 300]) {
    await nextTurn();
    assert.equal(state.written.length, written);
  }
});

/** Adds 129 streams, one more than a slice. Their flushes take `tookMs` in total and write `frames` each. */
function addLargeCycle(
  scheduler: WriteScheduler,
  { createStream }: ReturnType<typeof createScheduler>,
  { tookMs, frames = 1 }: { tookMs: number; frames?: number },
): void {
  scheduler.add(createStream('load', { tookMs, frames }));
  for (let count = 1; count < 129; count += 1) scheduler.add(createStream('load', { frames }));
}

/** Settles after the flush cycle that `addLargeCycle` starts: two slices, one per event-loop iteration. */
async function waitForLargeCycle({ written }: { written: readonly string[] }): Promise<void> {
  for (let turn = 0; turn < 2; turn += 1) await nextTurn();
  assert.equal(written.length, 129);
}

test('a flush cycle of more than 128 streams is followed by a cool-down of the same length, at most 20 ms, shorter above 8 frames per stream', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const coolDowns = [
    { tookMs: 3, coolDownMs: 3 },
    { tookMs: 20, coolDownMs: 20 },
    { tookMs: 500, coolDownMs: 20 },
    { tookMs: 500, frames: 8, coolDownMs: 20 },
    { tookMs: 500, frames: 16, coolDownMs: 10 },
    { tookMs: 12, frames: 16, coolDownMs: 6 },
    { tookMs: 500, frames: 80, coolDownMs: 2 },
  ];
  for (const { coolDownMs, ...load } of coolDowns) {
    const harness = createScheduler();
    const { state, scheduler, createStream } = harness;
    addLargeCycle(scheduler, harness, load);
    await waitForLargeCycle(state);

    scheduler.add(createStream('b'));
    await nextTurn();
    scheduler.add(createStream('c'));
    t.mock.timers.tick(coolDownMs - 1);
    assert.equal(state.written.length, 129);
    t.mock.timers.tick(1);

    assert.deepEqual(state.written.slice(129), ['b', 'c']);
  }
});

test('a stream added after the cool-down is flushed at once', async () => {
  const harness = createScheduler();
  const { state, scheduler, createStream } = harness;
  addLargeCycle(scheduler, harness, { tookMs: 3 });
  await waitForLargeCycle(state);
  await nextTurn();
  state.now += 3;

  scheduler.add(createStream('b'));
  await nextTurn();

  assert.deepEqual(state.written.slice(129), ['b']);
});

test('a flush cycle of 128 streams runs at once and without a cool-down', async () => {
  const { state, scheduler, createStream } = createScheduler();
  for (let count = 0; count < 128; count += 1) scheduler.add(createStream('a', { tookMs: 1 }));
  await nextTurn();
  assert.equal(state.written.length, 128);

  scheduler.add(createStream('b'));
  await nextTurn();

  assert.equal(state.written.length, 129);
});
