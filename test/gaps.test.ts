import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { test } from 'node:test';
import { EventSourceClient } from './support/clients/event-source.js';
import { collectingLog } from './support/recording/collecting-log.js';
import { waitForCleanUp } from './support/recording/wait-for-log.js';
import { prepare } from './support/servers/seed.js';
import { type System, startSystem } from './support/servers/system.js';

/** Opens a stream of ada with `?lastEventId=`; returns the page and its `stream.open` data. */
async function openAt(system: System, lastEventId: string) {
  const client = await system.connect();
  const path = await client.streamPath('ada');
  const page = new EventSourceClient(
    `${system.url}${path}?lastEventId=${encodeURIComponent(lastEventId)}`,
  );
  system.onClose(() => page.source.close());
  return { page, opening: await page.waitForOpenings(1) };
}

test('a first stream is fresh, and a client can resume from the id in its stream.open', async (t) => {
  const system = await startSystem(t);
  await system.publish('ada', 'before');

  const { page, opening } = await openAt(system, '');
  const id = await system.publish('ada', 'after');
  await page.until(() => page.ids.at(-1) === id || undefined);
  const resumed = await openAt(system, opening.id);
  await resumed.page.until(() => resumed.page.ids.at(-1) === id || undefined);

  assert.deepEqual({ ...opening, id: '' }, { resumed: true, reason: 'fresh', id: '' });
  assert.deepEqual(page.dataByType('message'), ['after']);
  assert.deepEqual(resumed.opening, { resumed: true, reason: 'resumed', id: opening.id });
  assert.deepEqual(resumed.page.dataByType('message'), ['after']);
});

test('a stream whose Last-Event-ID is not a position of the event log gets unknown_id and starts at the head', async (t) => {
  const system = await startSystem(t);
  const ownId = await system.publish('ada', 'for ada');
  const [epoch] = ownId.split('-');
  const ids = ['garbage', `${epoch}-999999`, `${epoch}-1e0`, `${ownId} `, '-1', '\u0000'];

  for (const id of ids) {
    const { page, opening } = await openAt(system, id);
    const nextId = await system.publish('ada', 'next');
    await page.until(() => page.ids.at(-1) === nextId || undefined);

    assert.equal(opening.resumed, false);
    assert.equal(opening.reason, 'unknown_id', JSON.stringify(id));
    assert.deepEqual(page.ids, [nextId]);
    page.source.close();
  }
});

test('the Last-Event-ID header takes precedence over the URL parameter, which keeps its value on reconnects', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const [older, newer] = [await system.publish('ada', 'a'), await system.publish('ada', 'b')];
  const path = `${await client.streamPath('ada')}?lastEventId=${older}`;

  const stream = await client.openStream(path, { 'last-event-id': newer });
  const id = await system.publish('ada', 'c');
  await stream.until(() => stream.lastId === id || undefined);

  assert.equal((await stream.opening()).id, newer);
  assert.deepEqual(stream.ids, [id]);
});

test('a stream token gives the events since its minting each time it is opened', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  await system.publish('ada', 'before');
  const { body } = await client.ask('POST', '/stream/token', {
    bearer: await client.accessToken('ada'),
  });
  const id = await system.publish('ada', 'since');

  for (let times = 0; times < 2; times += 1) {
    const stream = await client.openStream(`/stream/live/${body['streamToken']}`);
    const opening = await stream.opening();
    await stream.until(() => stream.ids.at(-1) === id || undefined);

    assert.deepEqual(opening, { resumed: true, reason: 'fresh', id: body['id'] });
    assert.deepEqual(stream.dataByType('message'), ['since']);
    stream.abort();
  }
});

test('a stream opened with an access token and no id starts at the head', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const id = await system.publish('ada', 'before');

  const stream = await client.listenAs(await client.accessToken('ada'));

  assert.deepEqual(await stream.opening(), { resumed: false, reason: 'fresh', id });
});

test('a client whose missed events were trimmed gets too_old', async (t) => {
  const env = { EVENT_LOG_MAX_EVENTS: '3', EVENT_LOG_MIN_AGE: '0', CLEANUP_INTERVAL: '1000' };
  const lines: Record<string, unknown>[] = [];
  const system = await startSystem(t, { env, log: collectingLog(lines) });
  const { page } = await openAt(system, '');
  const seen = await system.publish('ada', 'seen');
  await page.until(() => page.ids.at(-1) === seen || undefined);

  page.network.isDown = true;
  page.network.disconnect();
  for (let count = 0; count < 10; count += 1) await system.publish('ada', `lost ${count}`);
  await waitForCleanUp(lines, 'eventLog', 2 * 8); // Deletes 8 of the 11 events and the audience of each.
  page.network.isDown = false;
  const opening = await page.waitForOpenings(2);
  const nextId = await system.publish('ada', 'next');
  await page.until(() => page.ids.at(-1) === nextId || undefined);

  assert.deepEqual({ ...opening, id: '' }, { resumed: false, reason: 'too_old', id: '' });
  assert.deepEqual(page.dataByType('message'), ['seen', 'next']);
});

test('a Last-Event-ID of another epoch gets epoch_changed', async (t) => {
  const system = await startSystem(t);
  const otherSetup = await prepare();
  t.after(() => rmSync(otherSetup.folder, { recursive: true, force: true }));
  const oldId = await system.publish('ada', 'in the old log');

  await system.restart({ DATA_DIR: otherSetup.folder, DB_STORAGE: '' });
  const { page, opening } = await openAt(system, oldId);
  const nextId = await system.publish('ada', 'in the new log');
  await page.until(() => page.ids.at(-1) === nextId || undefined);

  assert.notEqual(nextId.split('-')[0], oldId.split('-')[0]);
  assert.deepEqual({ ...opening, id: '' }, { resumed: false, reason: 'epoch_changed', id: '' });
  assert.deepEqual(page.dataByType('message'), ['in the new log']);
});
