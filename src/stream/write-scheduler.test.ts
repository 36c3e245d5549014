import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Outbox } from './write-scheduler.js';

const nextTick = () => new Promise((resolve) => setImmediate(resolve));

/** An outbox whose time stands still unless a write is said to take some. */
function slowWorld() {
  const world = { now: 0, written: [] as string[] };
  const outbox = new Outbox(() => world.now);
  const sender = (name: string, { tookMs = 0, frames = 1, andThen = () => {} } = {}) => ({
    flush() {
      world.written.push(name);
      world.now += tookMs;
      andThen();
      return frames;
    },
  });
  return { world, outbox, sender };
}

test('each sender writes once, at the end of the tick', async () => {
  const { world, outbox, sender } = slowWorld();
  const [a, b] = [sender('a'), sender('b')];
  for (const one of [a, b, a]) outbox.add(one);
  assert.deepEqual(world.written, []);

  await nextTick();

  assert.deepEqual(world.written, ['a', 'b']);
});

test('what is added while others write goes out in the next round', async () => {
  const { world, outbox, sender } = slowWorld();
  outbox.add(sender('a', { andThen: () => outbox.add(sender('late')) }));
  outbox.add(sender('b'));

  await nextTick();
  assert.deepEqual(world.written, ['a', 'b']);
  await nextTick();
  assert.deepEqual(world.written, ['a', 'b', 'late']);
});

test('other work gets its turn after every 128 senders', async () => {
  const { world, outbox, sender } = slowWorld();
  for (let index = 0; index < 300; index += 1) outbox.add(sender(`${index}`));

  for (const written of [128, 256, 300]) {
    await nextTick();
    assert.equal(world.written.length, written);
  }
});

/** Senders of more than a slice, which take so long together, and write so many frames each. */
function addCrowd(
  outbox: Outbox,
  { sender }: ReturnType<typeof slowWorld>,
  { tookMs, frames = 1 }: { tookMs: number; frames?: number },
): void {
  outbox.add(sender('crowd', { tookMs, frames }));
  for (let count = 1; count < 129; count += 1) outbox.add(sender('crowd', { frames }));
}

test('after a large round comes a rest as long, and what comes meanwhile goes out as one', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const rests = [
    { tookMs: 3, restMs: 3 },
    { tookMs: 20, restMs: 20 },
    { tookMs: 500, restMs: 20 },
    { tookMs: 500, frames: 8, restMs: 20 },
    { tookMs: 500, frames: 16, restMs: 10 },
    { tookMs: 12, frames: 16, restMs: 6 },
    { tookMs: 500, frames: 80, restMs: 2 },
  ];
  for (const { restMs, ...crowd } of rests) {
    const scene = slowWorld();
    const { world, outbox, sender } = scene;
    addCrowd(outbox, scene, crowd);
    while (world.written.length < 129) await nextTick();

    outbox.add(sender('b'));
    await nextTick();
    outbox.add(sender('c'));
    t.mock.timers.tick(restMs - 1);
    assert.equal(world.written.length, 129);
    t.mock.timers.tick(1);

    assert.deepEqual(world.written.slice(129), ['b', 'c']);
  }
});

test('after a rest without work, the next sender does not wait', async () => {
  const scene = slowWorld();
  const { world, outbox, sender } = scene;
  addCrowd(outbox, scene, { tookMs: 3 });
  while (world.written.length < 129) await nextTick();
  await nextTick();
  world.now += 3;

  outbox.add(sender('b'));
  await nextTick();

  assert.deepEqual(world.written.slice(129), ['b']);
});

test('128 senders are written at once, and no rest follows', async () => {
  const { world, outbox, sender } = slowWorld();
  for (let count = 0; count < 128; count += 1) outbox.add(sender('a', { tookMs: 1 }));
  await nextTick();
  assert.equal(world.written.length, 128);

  outbox.add(sender('b'));
  await nextTick();

  assert.equal(world.written.length, 129);
});
