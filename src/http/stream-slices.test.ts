import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { Writable } from 'node:stream';
import { test } from 'node:test';
import { until } from '../../test/support/until.js';
import { StreamSink } from './stream-sink.js';

/** Opens a sink on an output that completes one write for each call of `takeOne`. */
function openSink(endMs = 60_000) {
  const taken: Buffer[] = [];
  const waiting: (() => void)[] = [];
  const take = (bytes: Buffer, done: () => void) => {
    waiting.push(() => {
      taken.push(bytes);
      done();
    });
  };
  const output = new Writable({
    highWaterMark: 1024,
    write: (chunk: Buffer, _, done) => take(chunk, done),
    writev: (chunks, done) => take(Buffer.concat(chunks.map(({ chunk }) => chunk)), done),
  });
  const sink = new StreamSink({
    output,
    destroy: () => output.destroy(),
    roundTrip: async () => {},
    endMs,
  });
  /** Completes one write, if there is one. */
  const takeOne = async () => {
    waiting.shift()?.();
    await new Promise((resolve) => setImmediate(resolve));
  };
  /** Completes writes until the condition holds. */
  const takeUntil = async (condition: () => boolean) => {
    for (let writes = 0; !condition(); writes += 1) {
      assert.ok(writes < 1000, `not reached after 1000 writes: ${condition}`);
      await takeOne();
    }
  };
  return { sink, output, taken, takeOne, takeUntil };
}

test('small writes are passed to the output unchanged', async () => {
  const { sink, taken, takeOne } = openSink();

  sink.write(Buffer.from('one'));
  await takeOne();
  sink.write(Buffer.from('two'));
  await takeOne();

  assert.deepEqual(taken.map(String), ['one', 'two']);
  assert.equal(sink.queuedBytes, 0);
});

test('the output gets 32 KiB at a time, and queuedBytes decreases in steps of 32 KiB', async () => {
  const { sink, output, taken, takeUntil } = openSink();
  const large = randomBytes(70_000);
  const queued: number[] = [];

  sink.write(large);
  await takeUntil(() => {
    assert.ok(output.writableLength <= 32_768);
    if (sink.queuedBytes > 0) queued.push(sink.queuedBytes);
    return sink.queuedBytes === 0;
  });

  assert.deepEqual(queued, [70_000, 37_232, 4_464]);
  assert.deepEqual(Buffer.concat(taken), large);
});

test('writes of all sizes reach the output in order, and drained() waits for all of them', async () => {
  const { sink, taken, takeOne, takeUntil } = openSink();
  const sizes = [10, 40_000, 1, 32_768, 32_767, 2, 100_000, 5];
  const parts = sizes.map((size) => randomBytes(size));
  let isDrained = false;

  for (const part of parts) {
    sink.write(part);
    if (part.length % 2 === 0) await takeOne();
  }
  void sink.drained().then(() => {
    isDrained = true;
  });
  await takeUntil(() => {
    if (sink.queuedBytes > 0) assert.equal(isDrained, false);
    return sink.queuedBytes === 0;
  });
  await takeOne();

  assert.equal(isDrained, true);
  assert.deepEqual(Buffer.concat(taken), Buffer.concat(parts));
});

test('end() flushes queued bytes before the output ends', async () => {
  const { sink, output, taken, takeUntil } = openSink();
  const large = randomBytes(40_000);

  sink.write(large);
  sink.end(Buffer.from('goodbye'));
  sink.write(Buffer.from('too late'));
  await takeUntil(() => output.destroyed);

  assert.deepEqual(Buffer.concat(taken), Buffer.concat([large, Buffer.from('goodbye')]));
  assert.ok(sink.closed);
});

test('end() destroys an output that does not take queued bytes in time', async () => {
  const { sink, output } = openSink(1);

  sink.end(randomBytes(40_000));
  await until(() => output.closed);

  assert.equal(sink.queuedBytes, 0);
  await sink.drained();
});

test('destroy() drops queued bytes and settles drained() and onClose()', async () => {
  const { sink } = openSink();
  sink.write(randomBytes(40_000));
  const drained = sink.drained();
  const closed = new Promise<void>((resolve) => sink.onClose(resolve));

  sink.destroy();
  await Promise.all([drained, closed]);
  sink.write(Buffer.from('too late'));
  sink.end();
  sink.destroy();

  assert.equal(sink.queuedBytes, 0);
  await new Promise<void>((resolve) => sink.onClose(resolve));
});
