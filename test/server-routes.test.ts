import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startSystem } from './support/servers/system.js';

const origin = 'https://app.example';
const event = { to: 'all', data: 'x' };

test('POST /v1/events and POST /events are one route, also for idempotency keys', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const stream = await client.listen('ada');
  const headers = { 'idempotency-key': 'once' };
  const post = (path: string, json: unknown) =>
    client.ask('POST', path, { bearer: system.apiKey, json, headers });

  const first = await post('/v1/events', event);
  const repeated = await post('/events', event);
  const other = await post('/events', { ...event, data: 'y' });
  await system.publish('all', 'marker');
  await stream.until(() => stream.dataByType('message').includes('marker') || undefined);

  assert.deepEqual([first.status, repeated.status, other.status], [201, 201, 409]);
  assert.deepEqual(repeated.body, first.body);
  assert.deepEqual(stream.dataByType('message'), ['x', 'marker']);
});

test('pages of a listed origin get no CORS headers under /v1, and get them elsewhere', async (t) => {
  const system = await startSystem(t, { env: { CORS_ORIGINS: origin } });
  const client = await system.connect();
  const getCorsHeaders = async (method: string, path: string, bearer = system.apiKey) => {
    const headers = { origin, 'access-control-request-method': 'POST' };
    const json = method === 'POST' ? event : undefined;
    const answer = await client.ask(method, path, { bearer, headers, json });
    return Object.keys(answer.headers).filter((name) => name.startsWith('access-control'));
  };

  for (const [method, path] of [
    ['POST', '/v1/events'],
    ['GET', '/v1/events'],
    ['OPTIONS', '/v1/events'],
    ['GET', '/v1/unknown'],
    ['OPTIONS', '/v1/unknown'],
  ] as const)
    assert.deepEqual(await getCorsHeaders(method, path), [], `${method} ${path}`);
  assert.deepEqual(await getCorsHeaders('POST', '/v1/events', 'wrong'), []);

  assert.ok((await getCorsHeaders('OPTIONS', '/stream/token')).length > 0);
  assert.ok((await getCorsHeaders('GET', '/me')).length > 0);
});

test('an API key from a page of another origin is refused on every route for keys', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const { key: bearer } = await system.runAdmin(({ apiKeys }) =>
    apiKeys.create({ name: 'all', scopes: ['publish', 'metrics'] }),
  );
  const askFrom = (site: string, method: string, path: string) => {
    const json = method === 'POST' ? event : undefined;
    return client.ask(method, path, { bearer, json, headers: { 'sec-fetch-site': site } });
  };

  for (const [method, path, accepted] of [
    ['POST', '/v1/events', 201],
    ['POST', '/events', 201],
    ['GET', '/metrics', 200],
  ] as const) {
    for (const site of ['cross-site', 'same-site']) {
      const { status, body } = await askFrom(site, method, path);
      assert.deepEqual([status, body['name']], [403, 'key_in_browser'], path);
    }
    for (const site of ['same-origin', 'none'])
      assert.equal((await askFrom(site, method, path)).status, accepted, path);
  }
});

test('an unknown path under /v1 gets 404 as JSON', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();

  for (const path of ['/v1', '/v1/', '/v1/unknown', '/v1/events/', '/v1/events/1', '/V1/events']) {
    const { status, body, headers } = await client.ask('GET', path, {
      headers: { accept: 'text/html' },
    });
    assert.deepEqual([status, body['name']], [404, 'not_found'], path);
    assert.equal(headers['content-type'], 'application/json; charset=utf-8');
  }
  const wrongMethod = await client.ask('GET', '/v1/events');
  assert.deepEqual([wrongMethod.status, wrongMethod.headers['allow']], [405, 'POST, OPTIONS']);
});

test('no cache may store a response under /v1 or /stream, or a response to a request with a token', async (t) => {
  const system = await startSystem(t, { env: { CORS_ORIGINS: origin } });
  const client = await system.connect();
  const key = system.apiKey;
  const user = await client.accessToken('ada');
  const streamPath = await client.streamPath('ada');

  for (const [method, path, bearer, status] of [
    ['POST', '/v1/events', key, 201],
    ['POST', '/events', key, 201],
    ['POST', '/v1/events', 'wrong', 401],
    ['GET', '/v1/events', undefined, 405],
    ['OPTIONS', '/v1/events', undefined, 204],
    ['GET', '/v1/unknown', undefined, 404],
    ['POST', '/stream/token', user, 200],
    ['OPTIONS', '/stream/token', undefined, 204],
    ['GET', '/stream/unknown', undefined, 404],
    ['GET', '/me', user, 200],
    ['POST', '/anything', user, 200],
    ['POST', '/logout', user, 204],
  ] as const) {
    const takesEvent = method === 'POST' && (path === '/anything' || path.endsWith('/events'));
    const json = takesEvent ? event : undefined;
    const answer = await client.ask(method, path, {
      ...(bearer && { bearer }),
      json,
      headers: { origin },
    });
    assert.equal(answer.status, status, `${method} ${path}`);
    assert.match(answer.headers['cache-control'] ?? '', /\bno-store\b/, `${method} ${path}`);
  }
  const stream = await client.openStream(streamPath);
  assert.match(stream.headers['cache-control'] ?? '', /\bno-store\b/);
  stream.abort();
});
