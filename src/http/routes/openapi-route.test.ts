import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { ask } from '../../../test/support/clients/ask.js';
import { protocols } from '../../../test/support/clients/exchange.js';
import { startOpenApiCheck } from '../../../test/support/openapi/observer.js';
import { startHttp } from '../../../test/support/servers/http-server.js';
import { openApiRoute } from './openapi-route.js';

const path = '/openapi.json';
const served = readFileSync(new URL('../../openapi.json', import.meta.url), 'utf8');

for (const protocol of protocols) {
  test(`the OpenAPI document is served over ${protocol} to pages of every origin, and revalidated at each use`, async (t) => {
    const { port } = await startHttp(t, [openApiRoute()], { corsOrigins: ['https://a.example'] });
    const stopCheck = startOpenApiCheck(port);
    t.after(stopCheck);

    // [headers, origins whose pages may read the response, whether the request may have credentials]
    for (const [headers, allowed, credentials] of [
      [{}, '*', undefined],
      [{ origin: 'https://a.example' }, 'https://a.example', 'true'],
      [{ origin: 'https://b.example' }, '*', undefined],
    ] as const) {
      const answer = await ask(protocol, port, 'GET', path, { headers });

      assert.equal(answer.status, 200);
      assert.equal(answer.text, served);
      assert.equal(answer.headers['content-type'], 'application/json; charset=utf-8');
      assert.equal(answer.headers['cache-control'], 'no-cache');
      assert.equal(answer.headers['access-control-allow-origin'], allowed);
      assert.equal(answer.headers['access-control-allow-credentials'], credentials);
      assert.equal(answer.headers['vary'], 'origin');
    }
    const head = await ask(protocol, port, 'HEAD', path);
    assert.deepEqual([head.status, head.text], [200, '']);
    assert.match(head.headers['etag'] ?? '', /^"[\w-]{43}"$/);
  });
}

test('a client that has the OpenAPI document gets 304 without a body', async (t) => {
  const { port } = await startHttp(t, [openApiRoute()]);
  const stopCheck = startOpenApiCheck(port);
  t.after(stopCheck);
  const { headers } = await ask('h2', port, 'HEAD', path);
  const { etag = '' } = headers;

  // [If-None-Match, status]
  for (const [list, status] of [
    [etag, 304],
    [`W/${etag}`, 304],
    [`"a", ${etag}`, 304],
    ['*', 304],
    ['"a"', 200],
    [etag.slice(1, -1), 200],
    ['', 200],
  ] as const) {
    const answer = await ask('h2', port, 'GET', path, { headers: { 'if-none-match': list } });

    assert.equal(answer.status, status, list);
    assert.equal(answer.text, status === 200 ? served : '');
    assert.equal(answer.headers['etag'], etag);
    assert.equal(answer.headers['cache-control'], 'no-cache');
  }
});
