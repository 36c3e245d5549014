import assert from 'node:assert/strict';
import { test } from 'node:test';
import { WriteScheduler } from './write-scheduler.js';

const nextTick = () => new Promise((resolve) => setImmediate(resolve));

/** An outbox whose time stands still unless a write is said to take some. */
function createScheduler() {
  const state = { now: 0, written: [] as string[] };
  const scheduler = new WriteScheduler(() => state.now);
  const createSender = (name: string, { tookMs = 0, frames = 1, andThen = () => {} } = {}) => ({
    flush() {
      state.written.push(name);
      state.now += tookMs;
      andThen();
      return frames;
    },
  });
  return { state, scheduler, createSender };
}

test('each stream writes once at the end of the tick', async () => {
  const { state, scheduler, createSender } = createScheduler();
  const [a, b] = [createSender('a'), createSender('b')];
  for (const one of [a, b, a]) scheduler.add(one);
  assert.deepEqual(state.written, []);

  await nextTick();

  assert.deepEqual(state.written, ['a', 'b']);
});

test('frames added during a flush cycle go out in the next one', async () => {
  const { state, scheduler, createSender } = createScheduler();
  scheduler.add(createSender('a', { andThen: () => scheduler.add(createSender('late')) }));
  scheduler.add(createSender('b'));

  await nextTick();
  assert.deepEqual(state.written, ['a', 'b']);
  await nextTick();
  assert.deepEqual(state.written, ['a', 'b', 'late']);
});

test('a flush cycle yields to the event loop after every 128 streams', async () => {
  const { state, scheduler, createSender } = createScheduler();
  for (let index = 0; index < 300; index += 1) scheduler.add(createSender(`${index}`));

  for (const written of [128, 256, 300]) {
    await nextTick();
    assert.equal(state.written.length, written);
  }
});

/** Senders of more than a slice, which take so long together, and write so many frames each. */
function addSenders(
  scheduler: WriteScheduler,
  { createSender }: ReturnType<typeof createScheduler>,
  { tookMs, frames = 1 }: { tookMs: number; frames?: number },
): void {
  scheduler.add(createSender('crowd', { tookMs, frames }));
  for (let count = 1; count < 129; count += 1) scheduler.add(createSender('crowd', { frames }));
}

test('a large flush cycle is followed by a cool-down of the same length', async (t) => {
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
  for (const { coolDownMs, ...crowd } of coolDowns) {
    const scene = createScheduler();
    const { state, scheduler, createSender } = scene;
    addSenders(scheduler, scene, crowd);
    while (state.written.length < 129) await nextTick();

    scheduler.add(createSender('b'));
    await nextTick();
    scheduler.add(createSender('c'));
    t.mock.timers.tick(coolDownMs - 1);
    assert.equal(state.written.length, 129);
    t.mock.timers.tick(1);

    assert.deepEqual(state.written.slice(129), ['b', 'c']);
  }
});

test('after an idle cool-down the next stream is flushed at once', async () => {
  const scene = createScheduler();
  const { state, scheduler, createSender } = scene;
  addSenders(scheduler, scene, { tookMs: 3 });
  while (state.written.length < 129) await nextTick();
  await nextTick();
  state.now += 3;

  scheduler.add(createSender('b'));
  await nextTick();

  assert.deepEqual(state.written.slice(129), ['b']);
});

test('a cycle of 128 streams is flushed at once without cool-down', async () => {
  const { state, scheduler, createSender } = createScheduler();
  for (let count = 0; count < 128; count += 1) scheduler.add(createSender('a', { tookMs: 1 }));
  await nextTick();
  assert.equal(state.written.length, 128);

  scheduler.add(createSender('b'));
  await nextTick();

  assert.equal(state.written.length, 129);
});
