import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { test } from 'node:test';
import { blockThread } from '../../test/support/block-thread.js';
import { ask } from '../../test/support/clients/ask.js';
import { startHttp } from '../../test/support/servers/http-server.js';
import { type Check, healthRoutes } from './health.js';

const fine = () => true;

// [what, the checks, status, what is said of each]
const cases: readonly (readonly [string, Record<string, Check>, number, Record<string, string>])[] =
  [
    ['no checks', {}, 200, {}],
    ['all is well', { a: fine, b: async () => true }, 200, { a: 'ok', b: 'ok' }],
    ['one is not', { a: fine, b: () => false }, 503, { a: 'ok', b: 'failing' }],
    ['one rejects', { a: () => Promise.reject(new Error('secret')) }, 503, { a: 'failing' }],
    [
      'one throws',
      {
        a: () => {
          throw new Error('secret');
        },
      },
      503,
      { a: 'failing' },
    ],
    [
      'one never settles',
      { a: fine, b: () => new Promise(() => {}) },
      503,
      { a: 'ok', b: 'failing' },
    ],
  ];

for (const [what, checks, status, said] of cases) {
  test(`ready, ${what}: ${status}`, async (t) => {
    const { port } = await startHttp(t, healthRoutes(checks));

    const answer = await ask('h2', port, 'GET', '/health/ready');

    assert.equal(answer.status, status);
    assert.deepEqual(answer.body, {
      status: status === 200 ? 'ok' : 'unavailable',
      checks: said,
    });
    assert.equal(answer.headers['retry-after'], status === 200 ? undefined : '1');
    assert.equal(answer.headers['cache-control'], 'no-store');
  });
}

test('ready, an answer that came while the process stood still: 200', async (t) => {
  const listener = createServer().listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port: there } = listener.address() as AddressInfo; // It listens on TCP.
  const socket = connect(there, '127.0.0.1');
  const [peer]: Socket[] = await once(listener, 'connection');
  assert.ok(peer !== undefined);
  t.after(() => {
    socket.destroy();
    peer.destroy();
    listener.close();
  });
  const check = async () => {
    const answered = once(peer, 'data');
    socket.write('well'); // It is with the kernel now,
    blockThread(1100); // and too late for whoever looks at the time first.
    await answered;
    return true;
  };
  const { port } = await startHttp(t, healthRoutes({ a: check }));

  const answer = await ask('h2', port, 'GET', '/health/ready');

  assert.equal(answer.status, 200);
});

test('live, whatever the checks say', async (t) => {
  const { port } = await startHttp(t, healthRoutes({ a: () => false }));

  const answer = await ask('http/1.1', port, 'GET', '/health/live');

  assert.equal(answer.status, 200);
  assert.deepEqual(answer.body, { status: 'ok' });
});
