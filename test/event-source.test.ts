import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EventSourceClient } from './support/clients/event-source.js';
import type { Protocol } from './support/clients/exchange.js';
import type { Username } from './support/servers/seed.js';
import { type System, startSystem } from './support/servers/system.js';

/** Opens a new stream of a user with the `EventSource` of the package `eventsource`. */
async function openPage(
  system: System,
  { user = 'ada', protocol = 'h2' }: { user?: Username; protocol?: Protocol } = {},
) {
  const client = await system.connect();
  const path = await client.streamPath(user);
  const page = new EventSourceClient(`${system.url}${path}`, { protocol });
  system.onClose(() => page.source.close());
  await page.waitForOpenings(1);
  return { page, path, client };
}

for (const protocol of ['h2', 'http/1.1'] as const) {
  test(`EventSource over ${protocol} receives the events that it missed while its network was down`, async (t) => {
    const system = await startSystem(t);
    const { page } = await openPage(system, { protocol });
    const first = await system.publish('ada', 'before');
    await page.until(() => page.ids.at(-1) === first || undefined);

    page.network.disconnect();
    const second = await system.publish('ada', 'meanwhile');
    await page.waitForOpenings(2);
    await page.until(() => page.ids.at(-1) === second || undefined);

    assert.deepEqual(page.dataByType('message'), ['before', 'meanwhile']);
    assert.deepEqual(page.openings, [
      { resumed: true, reason: 'fresh', id: page.openings[0]?.id },
      { resumed: true, reason: 'resumed', id: first },
    ]);
    assert.deepEqual(page.network.lastEventIds, [undefined, first]);
  });
}

test('EventSource reconnects to a restarted server', async (t) => {
  const system = await startSystem(t);
  const { page } = await openPage(system);
  const first = await system.publish('ada', 'before');
  await page.until(() => page.ids.at(-1) === first || undefined);

  await system.restart();
  await system.publish('ada', 'after');
  await page.waitForOpenings(2);
  await page.until(() => page.dataByType('message')[1]);

  assert.deepEqual(page.dataByType('message'), ['before', 'after']);
  assert.deepEqual(page.openings[1], { resumed: true, reason: 'resumed', id: first });
  assert.equal(JSON.parse(page.dataByType('stream.close')[0] ?? '').code, 'draining');
});

test('EventSource that has received no event resumes from the id of its stream.open', async (t) => {
  const system = await startSystem(t);
  await system.publish('ada', 'too early for this page');
  const { page } = await openPage(system);

  page.network.disconnect();
  await system.publish('ada', 'meanwhile');
  const opening = await page.waitForOpenings(2);
  await page.until(() => page.dataByType('message')[0]);

  assert.deepEqual([opening.resumed, opening.reason], [true, 'resumed']);
  assert.deepEqual(page.dataByType('message'), ['meanwhile']);
  assert.deepEqual(page.network.lastEventIds, [undefined, page.openings[0]?.id]);
});

test('EventSource gets stream.close with reconnect false after a logout', async (t) => {
  const system = await startSystem(t);
  const { page, client } = await openPage(system);

  const bearer = await client.accessToken('ada');
  await client.ask('POST', '/logout', { bearer });
  const closing = await page.event('stream.close');
  page.source.close(); // As docs/protocol.md says. Otherwise it would reconnect after five minutes.

  const expected = { code: 'revoked', reconnect: false, renew: false };
  assert.deepEqual(JSON.parse(closing.data), expected);
  assert.deepEqual(page.network.statuses, [200]);
});

test('a Last-Event-ID from the stream of another user replays no events of that user', async (t) => {
  const system = await startSystem(t);
  const { page } = await openPage(system, { user: 'bob' });
  const forAda = await system.publish('ada', 'for ada');
  await system.publish('ada', 'for ada, too');
  const client = await system.connect();

  const stream = await client.openStream(await client.streamPath('bob'), {
    'last-event-id': forAda,
  });
  const opening = await stream.opening();
  const id = await system.publish('bob', 'for bob');
  await stream.until(() => stream.ids.at(-1) === id || undefined);
  await page.until(() => page.ids.at(-1) === id || undefined);

  assert.equal(opening.reason, 'resumed'); // The number of any event is a position.
  assert.deepEqual(stream.dataByType('message'), ['for bob']);
  assert.deepEqual(page.dataByType('message'), ['for bob']);
});
