import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryLog } from '../../test/support/databases/memory-log.js';
import { silentLog } from '../logging/log.js';
import { EventLog } from './event-log.js';
import { Follower } from './log-poller.js';

const limits = { ageMaxMs: 1e9, eventsMax: 1e9, bytesMax: 1e9 };
const never = 1e9;

const settled = () => new Promise((resolve) => setImmediate(resolve));

test('a wake-up that comes during a poll is followed by another poll', async (t) => {
  const store = new MemoryLog('e');
  store.openGates();
  const eventLog = await EventLog.open({ store, log: silentLog, clock: Date.now, limits });
  const pollMs = { busy: never, quiet: never, woken: never };
  const follower = Follower.start({ eventLog, log: silentLog, listen: () => undefined, pollMs });
  t.after(() => follower.close());
  store.closeGates();
  follower.wake();
  store.step(0); // It has read the newest number, and does not know it yet.
  store.write(['all'], 'x');

  follower.wake();
  store.openGates();
  await settled();

  assert.equal(eventLog.head, 1);
});
