import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { EventSourceClient } from './support/clients/event-source.js';
import type { H2Stream } from './support/clients/h2-client.js';
import { startSystem } from './support/servers/system.js';

const minute = 60_000;
const hour = 60 * minute;

/** Starts a system whose clocks the test advances, with a stream of bob that stays open. */
async function startWithManualClock(t: TestContext) {
  const time = { aheadMs: 0 };
  const env = {
    ...{ ACCESS_TOKEN_EXPIRES_IN: '60000', STREAM_TOKEN_EXPIRES_IN: '60000' },
    CLEANUP_INTERVAL: '86400000', // No clean-up, because a deleted token would be unknown instead of expired.
  };
  const system = await startSystem(t, {
    env,
    wallClock: () => Date.now() + time.aheadMs,
    monotonicClock: () => performance.now() + time.aheadMs,
  });
  const client = await system.connect();
  const bob = await client.listen('bob');
  const path = await client.streamPath('ada');
  /** Resolves when the server counts `users`; by then the server has stored the change of ada's token. */
  const waitForCount = (users: number) =>
    bob.until(() => bob.dataByType('count').at(-1) === String(users) || undefined);
  return { time, system, client, path, waitForCount };
}

/** Resolves with the next heartbeat, by which the server has read the new time. */
async function waitForHeartbeat(stream: H2Stream): Promise<void> {
  const before = stream.comments;
  await stream.until(() => stream.comments > before || undefined);
}

test('a stream stays open for days, and its URL works for twelve hours after each use', async (t) => {
  const { time, system, client, path, waitForCount } = await startWithManualClock(t);
  const stream = await client.openStream(path);
  await stream.opening();

  for (const aheadMs of [6, 12, 18, 24, 30].map((hours) => hours * hour)) {
    time.aheadMs = aheadMs;
    await waitForHeartbeat(stream); // By then the server has renewed its token, too.
  }
  const seen = await system.publish('ada', 'after thirty hours');
  await stream.until(() => stream.ids.at(-1) === seen || undefined);
  stream.abort();
  await waitForCount(1);
  time.aheadMs += 12 * hour - minute;
  const missed = await system.publish('ada', 'meanwhile');
  const resumed = await client.openStream(path, { 'last-event-id': seen });
  await resumed.until(() => resumed.ids.at(-1) === missed || undefined);
  await waitForCount(2);
  resumed.abort();
  await waitForCount(1);
  time.aheadMs += 12 * hour + minute;
  const tooLate = await client.openStream(path, { 'last-event-id': missed });

  assert.deepEqual(await resumed.opening(), { resumed: true, reason: 'resumed', id: seen });
  assert.deepEqual(resumed.dataByType('message'), ['meanwhile']);
  assert.equal(tooLate.status, 401);
});

test('EventSource stops when its token has expired', async (t) => {
  const { time, system, client, path, waitForCount } = await startWithManualClock(t);
  const unopenedPath = await client.streamPath('ada');
  const page = new EventSourceClient(system.url + path);
  system.onClose(() => page.source.close());
  await page.waitForOpenings(1);
  await waitForCount(2);

  page.network.isDown = true;
  page.network.disconnect();
  await waitForCount(1);
  time.aheadMs += 13 * hour;
  page.network.isDown = false;
  await page.ended();
  const expired = await client.ask('GET', unopenedPath);

  assert.deepEqual(page.network.statuses, [200, 401]);
  assert.ok(page.isClosed);
  assert.deepEqual([expired.status, expired.body['name']], [401, 'expired_token']);
});
