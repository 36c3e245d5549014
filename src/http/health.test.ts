import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { test } from 'node:test';
import { blockThread } from '../../test/support/block-thread.js';
import { ask } from '../../test/support/clients/ask.js';
import { startHttp } from '../../test/support/servers/http-server.js';
import { Failure } from '../errors.js';
import { type Check, healthRoutes } from './health.js';

const passing = () => true;

type Reported = Record<string, string>;

// [description, checks, status, reported states, reported reasons]
const cases: readonly (readonly [string, Record<string, Check>, number, Reported, Reported?])[] = [
  ['there are no checks', {}, 200, {}],
  ['all checks pass', { a: passing, b: async () => true }, 200, { a: 'ok', b: 'ok' }],
  ['a check fails', { a: passing, b: () => false }, 503, { a: 'ok', b: 'failing' }],
  ['a check rejects', { a: () => Promise.reject(new Error('secret')) }, 503, { a: 'failing' }],
  [
    'a check throws',
    {
      a: () => {
        throw new Error('secret');
      },
    },
    503,
    { a: 'failing' },
  ],
  [
    'a check never settles',
    { a: passing, b: () => new Promise(() => {}) },
    503,
    { a: 'ok', b: 'failing' },
    { b: 'timeout' },
  ],
  [
    'a check rejects with a reason',
    {
      a: passing,
      b: () => Promise.reject(new Failure('service_unavailable', 'secret', { reason: 'full' })),
    },
    503,
    { a: 'ok', b: 'failing' },
    { b: 'full' },
  ],
  [
    'a check is degraded',
    { a: passing, b: () => ({ degraded: 'large' }) },
    200,
    { a: 'ok', b: 'degraded' },
    { b: 'large' },
  ],
];

for (const [what, checks, status, states, reasons] of cases) {
  test(`readiness is ${status} when ${what}`, async (t) => {
    const { port } = await startHttp(t, healthRoutes(checks));

    const answer = await ask('h2', port, 'GET', '/health/ready');

    assert.equal(answer.status, status);
    assert.deepEqual(answer.body, {
      status: status === 200 ? 'ok' : 'unavailable',
      checks: states,
      ...(reasons && { reasons }),
    });
    assert.equal(answer.headers['retry-after'], status === 200 ? undefined : '1');
    assert.equal(answer.headers['cache-control'], 'no-store');
  });
}

test('readiness is 200 when a check result arrived while the event loop was blocked', async (t) => {
  const listener = createServer().listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port: tcpPort } = listener.address() as AddressInfo; // Safe: it listens on TCP.
  const socket = connect(tcpPort, '127.0.0.1');
  const [peer]: Socket[] = await once(listener, 'connection');
  assert.ok(peer !== undefined);
  t.after(() => {
    socket.destroy();
    peer.destroy();
    listener.close();
  });
  const check = async () => {
    const answered = once(peer, 'data');
    socket.write('well');
    // The data is now in the kernel's receive buffer. Afterwards the deadline is over, and timers may run
    // before the socket is read.
    blockThread(1100);
    await answered;
    return true;
  };
  const { port } = await startHttp(t, healthRoutes({ a: check }));

  const answer = await ask('h2', port, 'GET', '/health/ready');

  assert.equal(answer.status, 200);
});

test('liveness is 200 even when a check fails', async (t) => {
  const { port } = await startHttp(t, healthRoutes({ a: () => false }));

  const answer = await ask('http/1.1', port, 'GET', '/health/live');

  assert.equal(answer.status, 200);
  assert.deepEqual(answer.body, { status: 'ok' });
});
