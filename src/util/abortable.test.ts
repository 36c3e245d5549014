import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';
import { abortable } from './abortable.js';

const pending = new Promise<never>(() => {});

test('abortable() settles as its promise does and leaves no listener on the signal', async () => {
  const { signal } = new AbortController();
  const failure = new Error('failed');

  assert.equal(await abortable(Promise.resolve(7), signal), 7);
  await assert.rejects(abortable(Promise.reject(failure), signal), failure);
  assert.equal(await abortable(Promise.resolve(7), undefined), 7);
  assert.deepEqual(getEventListeners(signal, 'abort'), []);
});

test('abortable() rejects with the reason of an abort while its promise is pending', async () => {
  const controller = new AbortController();
  const reason = new Error('client disconnected');

  const waiting = abortable(pending, controller.signal);
  controller.abort(reason);

  await assert.rejects(waiting, reason);
});

test('abortable() rejects at once when its signal has already aborted', async () => {
  const reason = new Error('client disconnected');

  await assert.rejects(abortable(pending, AbortSignal.abort(reason)), reason);
});
