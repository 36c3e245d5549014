import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryLogStore } from '../../test/support/databases/memory-log-store.js';
import { unlimitedRetention } from '../../test/support/unlimited-retention.js';
import { silentLogger } from '../logging/logger.js';
import { EventLog } from './event-log.js';
import { LogPoller } from './log-poller.js';

const neverMs = 1e9;

const nextTurn = () => new Promise((resolve) => setImmediate(resolve));

test('a notification during a poll is followed by another poll', async (t) => {
  const store = new MemoryLogStore('e');
  store.release();
  const eventLog = await EventLog.open({
    store,
    log: silentLogger,
    wallClock: Date.now,
    limits: unlimitedRetention,
  });
  const pollMs = { busy: neverMs, idle: neverMs, notified: neverMs };
  const poller = LogPoller.start({
    eventLog,
    log: silentLogger,
    listen: () => undefined,
    pollMs,
  });
  t.after(() => poller.close());
  store.hold();
  poller.pollNow();
  store.step(0); // The head is read, but the result has not arrived.
  store.appendExternally(['all'], 'x');

  poller.pollNow();
  store.release();
  await nextTurn();

  assert.equal(eventLog.head, 1);
});
