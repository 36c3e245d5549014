import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import { test } from 'node:test';
import { untilAborted } from './until-aborted.js';

async function opened(): Promise<Server> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

test('what is opened in time is handed over, and an abort after that does nothing to it', async () => {
  const controller = new AbortController();

  const server = await untilAborted(opened(), controller.signal);
  controller.abort();

  assert.equal(server.listening, true);
  server.close();
});

for (const when of ['before', 'during'] as const) {
  test(`what is aborted ${when} its opening rejects with the reason, and is closed`, async () => {
    const controller = new AbortController();
    if (when === 'before') controller.abort('enough');
    const opening = opened();

    const waiting = untilAborted(opening, controller.signal);
    controller.abort('enough');

    await assert.rejects(waiting, (reason) => reason === 'enough');
    const server = await opening;
    if (server.listening) await once(server, 'close');
    assert.equal(server.listening, false);
  });
}

test('an opening that fails rejects with its own reason', async () => {
  const opening = Promise.reject<Server>(new Error('no door'));

  await assert.rejects(untilAborted(opening, new AbortController().signal), /no door/);
});

test('one that fails after it was given up is nobody’s rejection', async () => {
  const controller = new AbortController();
  const opening = opened().then<Server>((server) => {
    server.close();
    throw new Error('no door');
  });

  const waiting = untilAborted(opening, controller.signal);
  controller.abort('enough');

  await assert.rejects(waiting, (reason) => reason === 'enough');
  await assert.rejects(opening, /no door/);
});
