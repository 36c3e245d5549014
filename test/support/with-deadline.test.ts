import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EventCollector } from './clients/event-collector.js';
import { withDeadline } from './with-deadline.js';

const never = new Promise<never>(() => {});

test('withDeadline() settles as the promise does', async () => {
  assert.equal(await withDeadline(Promise.resolve('result'), 'a result', 60_000), 'result');
  await assert.rejects(withDeadline(Promise.reject(new Error('own')), 'a result'), /own/);
});

test('withDeadline() rejects with a description that is evaluated at the deadline', async () => {
  let received = 0;
  const waiting = withDeadline(never, () => `an event after ${received}`, 5);
  received += 1;

  await assert.rejects(waiting, { message: 'missing after 0.005 s: an event after 1' });
});

test('a failed wait for an event reports the event and the last events received', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const stream = new EventCollector();
  stream.feed(Buffer.from('id: 7\ndata: seven\n\n'));

  const waiting = assert.rejects(stream.event('stream.close'), (error: Error) => {
    assert.match(error.message, /^missing after 60 s: stream\.close; last: .*"id":"7"/);
    return true;
  });
  t.mock.timers.tick(60_000);

  await waiting;
});
