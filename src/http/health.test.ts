import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ask, startHttp } from '../../test/support/http-server.js';
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

    const answer = await ask('h2', port, { path: '/health/ready' });

    assert.equal(answer.status, status);
    assert.deepEqual(answer.body, {
      status: status === 200 ? 'ok' : 'unavailable',
      checks: said,
    });
    assert.equal(answer.headers['retry-after'], status === 200 ? undefined : '1');
    assert.equal(answer.headers['cache-control'], 'no-store');
  });
}

test('live, whatever the checks say', async (t) => {
  const { port } = await startHttp(t, healthRoutes({ a: () => false }));

  const answer = await ask('http/1.1', port, { path: '/health/live' });

  assert.equal(answer.status, 200);
  assert.deepEqual(answer.body, { status: 'ok' });
});
