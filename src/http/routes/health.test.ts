import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { test } from 'node:test';
import { blockThread } from '../../../test/support/block-thread.js';
import { ask } from '../../../test/support/clients/ask.js';
import type { Answer } from '../../../test/support/clients/exchange.js';
import { startHttp } from '../../../test/support/servers/http-server.js';
import { Failure } from '../../errors.js';
import { type CheckResult, healthRoutes } from './health.js';

const passing = async () => true;
const failing = async () => false;

type Checks = Readonly<Record<string, () => Promise<CheckResult>>>;

type Reported = Record<string, string>;

// [description, checks, status, reported states, reported reasons]
const cases: readonly (readonly [string, Checks, number, Reported, Reported?])[] = [
  ['there are no checks', {}, 200, {}],
  ['all checks pass', { a: passing, b: passing }, 200, { a: 'ok', b: 'ok' }],
  ['a check fails', { a: passing, b: failing }, 503, { a: 'ok', b: 'failing' }],
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
    { a: passing, b: async () => ({ degraded: 'large' }) },
    200,
    { a: 'ok', b: 'degraded' },
    { b: 'large' },
  ],
];

for (const [what, checks, status, states, reasons] of cases) {
  test(`readiness is ${status} when ${what}`, async (t) => {
    const { port } = await startHttp(t, healthRoutes({ checks: {}, sharedChecks: checks }));

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

test('readiness is 200 although a check needs several turns of an event loop that is blocked for seconds', async (t) => {
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
    for (let round = 0; round < 3; round += 1) {
      const answered = once(peer, 'data');
      socket.write('well');
      // The data is now in the kernel's receive buffer. Afterwards the deadline is over, and timers may run
      // before the socket is read.
      blockThread(1100);
      await answered;
    }
    return true;
  };
  const { port } = await startHttp(t, healthRoutes({ checks: {}, sharedChecks: { a: check } }));

  const answer = await ask('h2', port, 'GET', '/health/ready');

  assert.equal(answer.status, 200);
});

test('readiness requests within a second share one run of a shared check; other checks run for each request', async (t) => {
  const time = { now: 0 };
  const counts = { own: 0, shared: 0 };
  const routes = healthRoutes({
    checks: { own: () => ++counts.own > 0 },
    sharedChecks: { shared: async () => ++counts.shared !== 2 },
    monotonicClock: () => time.now,
  });
  const { port } = await startHttp(t, routes);
  const askAll = () =>
    Promise.all(Array.from({ length: 10 }, () => ask('h2', port, 'GET', '/health/ready')));
  const getStatuses = (answers: readonly Answer[]) => new Set(answers.map(({ status }) => status));

  const first = [...(await askAll()), ...(await askAll())];
  assert.deepEqual(counts, { own: 20, shared: 1 });
  time.now += 1000;
  const second = await askAll();

  assert.deepEqual(counts, { own: 30, shared: 2 });
  assert.deepEqual(getStatuses(first), new Set([200]));
  assert.deepEqual(getStatuses(second), new Set([503]));
});

test('liveness is 200 even when a check fails', async (t) => {
  const { port } = await startHttp(t, healthRoutes({ checks: { a: () => false } }));

  const answer = await ask('http/1.1', port, 'GET', '/health/live');

  assert.equal(answer.status, 200);
  assert.deepEqual(answer.body, { status: 'ok' });
});
