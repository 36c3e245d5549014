import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import { test } from 'node:test';
import { until } from '../../test/support/until.js';
import { untilAborted } from './until-aborted.js';

async function openServer(): Promise<Server> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

test('a resource opened in time is returned, and a later abort does not close it', async () => {
  const controller = new AbortController();

  const server = await untilAborted(openServer(), controller.signal);
  controller.abort();

  assert.equal(server.listening, true);
  server.close();
});

for (const when of ['before', 'during'] as const) {
  test(`an abort ${when} opening rejects with the reason of the abort, and the resource is closed`, async () => {
    const controller = new AbortController();
    if (when === 'before') controller.abort('aborted');
    const opening = openServer();

    const waiting = untilAborted(opening, controller.signal);
    controller.abort('aborted');

    await assert.rejects(waiting, (reason) => reason === 'aborted');
    const server = await opening;
    await until(() => !server.listening);
  });
}

test('a failure to open rejects with its own error', async () => {
  const opening = Promise.reject<Server>(new Error('cannot open'));

  await assert.rejects(untilAborted(opening, new AbortController().signal), /cannot open/);
});

test('a failure to open after an abort is not an unhandled rejection', async () => {
  const controller = new AbortController();
  const opening = openServer().then<Server>((server) => {
    server.close();
    throw new Error('cannot open');
  });

  const waiting = untilAborted(opening, controller.signal);
  controller.abort('aborted');

  await assert.rejects(waiting, (reason) => reason === 'aborted');
  await assert.rejects(opening, /cannot open/);
});
