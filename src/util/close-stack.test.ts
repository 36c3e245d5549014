import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Logger, silentLogger } from '../logging/logger.js';
import { CloseStack } from './close-stack.js';

/** Collects log lines in `lines`. */
const collectLines = (lines: unknown[]): Logger => ({
  ...silentLogger,
  warn: (fields, phrase) => void lines.push({ ...fields, phrase }),
  error: (fields, phrase) => void lines.push({ ...fields, phrase }),
});

test('components are closed in reverse order, one after the other, and once', async () => {
  const closed: string[] = [];
  const stack = new CloseStack(silentLogger);
  stack.add('first', () => void closed.push('first'));
  stack.add('second', async () => {
    await new Promise((resolve) => setImmediate(resolve));
    closed.push('second');
  });

  await stack.close(performance.now() + 60_000);
  await stack.close(performance.now() + 60_000);

  assert.deepEqual(closed, ['second', 'first']);
});

test('a component that fails or hangs does not stop the others from closing', async () => {
  const lines: unknown[] = [];
  const stack = new CloseStack(collectLines(lines));
  let isClosed = false;
  stack.add('the last', () => {
    isClosed = true;
  });
  stack.add('one that hangs', () => new Promise(() => {}));
  const cause = new Error('unavailable');
  stack.add('one that rejects', () => Promise.reject(cause));
  stack.add('one that throws', () => {
    throw cause;
  });

  await stack.close(performance.now() + 20);

  assert.ok(isClosed);
  assert.deepEqual(lines, [
    { part: 'one that throws', cause, phrase: 'component failed to close' },
    { part: 'one that rejects', cause, phrase: 'component failed to close' },
    { part: 'one that hangs', phrase: 'component did not close in time' },
  ]);
});
