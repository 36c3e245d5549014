import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { test } from 'node:test';
import { EventSourceClient } from './support/clients/event-source.js';
import { collectingLog } from './support/recording/collecting-log.js';
import { waitForCleanUp } from './support/recording/wait-for-log.js';
import { prepare } from './support/servers/seed.js';
import { type System, startSystem } from './support/servers/system.js';

/** Opens a stream of ada with `?lastEventId=`; returns it and its `stream.open` data. */
async function openAt(system: System, lastEventId: string) {
  const client = await system.connect();
  const path = await client.streamPath('ada');
  const page = new EventSourceClient(
    `${system.url}${path}?lastEventId=${encodeURIComponent(lastEventId)}`,
  );
  system.onClose(() => page.source.close());
  return { page, opening: await page.waitForOpenings(1) };
}

test('a first stream is fresh, and the id in its stream.open can be resumed from', async (t) => {
  const system = await startSystem(t);
  await system.publish('ada', 'before');

  const { page, opening } = await openAt(system, '');
  const id = await system.publish('ada', 'after');
  await page.until(() => page.ids.at(-1) === id || undefined);
  const again = await openAt(system, opening.id);
  await again.page.until(() => again.page.ids.at(-1) === id || undefined);

  assert.deepEqual({ ...opening, id: '' }, { resumed: false, reason: 'fresh', id: '' });
  assert.deepEqual(page.dataByType('message'), ['after']);
  assert.deepEqual(again.opening, { resumed: true, reason: 'resumed', id: opening.id });
  assert.deepEqual(again.page.dataByType('message'), ['after']);
});

test('a Last-Event-ID not issued to this client is unknown_id, and the stream starts at the head', async (t) => {
  const system = await startSystem(t);
  const own = await system.publish('ada', 'for ada');
  const foreign = await system.publish('bob', 'for bob');
  const [epoch] = own.split('-');
  const ids = ['garbage', `${epoch}-999999`, foreign, `${epoch}-1e0`, `${own} `, '-1', '\u0000'];

  for (const id of ids) {
    const { page, opening } = await openAt(system, id);
    const next = await system.publish('ada', 'next');
    await page.until(() => page.ids.at(-1) === next || undefined);

    assert.equal(opening.resumed, false);
    assert.equal(opening.reason, 'unknown_id', JSON.stringify(id));
    assert.deepEqual(page.ids, [next]);
    page.source.close();
  }
});

test('a client whose missed events were trimmed gets too_old', async (t) => {
  const env = { EVENT_LOG_MAX_EVENTS: '3', CLEANUP_INTERVAL: '1000' };
  const lines: Record<string, unknown>[] = [];
  const system = await startSystem(t, { env, log: collectingLog(lines) });
  const { page } = await openAt(system, '');
  const seen = await system.publish('ada', 'seen');
  await page.until(() => page.ids.at(-1) === seen || undefined);

  page.network.isDown = true;
  page.network.disconnect();
  for (let count = 0; count < 10; count += 1) await system.publish('ada', `lost ${count}`);
  await waitForCleanUp(lines, 'eventLog', 2 * 8); // Eleven events with an audience each; three are kept.
  page.network.isDown = false;
  const opening = await page.waitForOpenings(2);
  const next = await system.publish('ada', 'next');
  await page.until(() => page.ids.at(-1) === next || undefined);

  assert.deepEqual({ ...opening, id: '' }, { resumed: false, reason: 'too_old', id: '' });
  assert.deepEqual(page.dataByType('message'), ['seen', 'next']);
});

test('a Last-Event-ID of another epoch gets epoch_changed', async (t) => {
  const system = await startSystem(t);
  const other = await prepare();
  t.after(() => rmSync(other.folder, { recursive: true, force: true }));
  const old = await system.publish('ada', 'in the old log');

  await system.restart({ DATA_DIR: other.folder, DB_STORAGE: '' });
  const { page, opening } = await openAt(system, old);
  const next = await system.publish('ada', 'in the new log');
  await page.until(() => page.ids.at(-1) === next || undefined);

  assert.notEqual(next.split('-')[0], old.split('-')[0]);
  assert.deepEqual({ ...opening, id: '' }, { resumed: false, reason: 'epoch_changed', id: '' });
  assert.deepEqual(page.dataByType('message'), ['in the new log']);
});
