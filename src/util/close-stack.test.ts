import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Log, silentLog } from '../logging/log.js';
import { Closers } from './close-stack.js';

/** Keeps what is logged in `lines`. */
const keeping = (lines: unknown[]): Log => ({
  ...silentLog,
  warn: (fields, phrase) => void lines.push({ ...fields, phrase }),
  error: (fields, phrase) => void lines.push({ ...fields, phrase }),
});

test('parts are closed in reverse, each when the one after it has closed, and once', async () => {
  const closed: string[] = [];
  const closers = new Closers(silentLog);
  closers.add('first', () => void closed.push('first'));
  closers.add('second', async () => {
    await new Promise((resolve) => setImmediate(resolve));
    closed.push('second');
  });

  await closers.close(performance.now() + 60_000);
  await closers.close(performance.now() + 60_000);

  assert.deepEqual(closed, ['second', 'first']);
});

test('whatever one part does, those below it are closed, too', async () => {
  const lines: unknown[] = [];
  const closers = new Closers(keeping(lines));
  let isClosed = false;
  closers.add('the last', () => {
    isClosed = true;
  });
  closers.add('one that hangs', () => new Promise(() => {}));
  const cause = new Error('away');
  closers.add('one that rejects', () => Promise.reject(cause));
  closers.add('one that throws', () => {
    throw cause;
  });

  await closers.close(performance.now() + 20);

  assert.ok(isClosed);
  assert.deepEqual(lines, [
    { part: 'one that throws', cause, phrase: 'a part did not close' },
    { part: 'one that rejects', cause, phrase: 'a part did not close' },
    { part: 'one that hangs', phrase: 'a part did not close in time' },
  ]);
});
