import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Failure } from '../errors.js';
import { toEcho } from './anything.js';

function createExchange(url: string, headers: Record<string, string> = {}) {
  return {
    method: 'GET',
    url,
    query: new URLSearchParams(url.split('?')[1] ?? ''),
    headers,
    ip: '192.0.2.1',
    hostname: 'example.com',
    body: async (): Promise<unknown> => undefined,
  };
}

test('a request is echoed in the shape of an Express request', async () => {
  const exchange = createExchange('/anything?a=1&b=2&b=3&c=', { 'x-test': 'yes' });

  assert.deepEqual(await toEcho(exchange), {
    method: 'GET',
    url: '/anything?a=1&b=2&b=3&c=',
    params: {},
    query: { a: '1', b: ['2', '3'], c: '' },
    headers: { 'x-test': 'yes' },
    body: {},
    ip: '192.0.2.1',
    protocol: 'https',
    hostname: 'example.com',
  });
});

test('credentials in the headers, the URL and the query are not echoed', async () => {
  const jwt = 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln';
  const url = `/anything?access_token=abc&x=${jwt}&%61ccess%54oken=abc&x=1&page_token_count=3`;
  const secrets = { authorization: `Bearer ${jwt}`, cookie: 'a=b', 'proxy-authorization': 'x' };

  const echo = await toEcho(createExchange(url, { ...secrets, accept: '*/*' }));

  assert.deepEqual(echo.headers, { accept: '*/*' });
  assert.equal(
    echo.url,
    '/anything?access_token=***&x=***&%61ccess%54oken=***&x=1&page_token_count=3',
  );
  assert.deepEqual(echo.query, {
    access_token: '***',
    x: ['***', '1'],
    accessToken: '***',
    page_token_count: '3',
  });
});

test('a credential with space around it is not echoed', async () => {
  const key = `hk_${'0'.repeat(16)}_secret`;

  const echo = await toEcho(createExchange(`/anything?x=%20${key}+&y=%20a`));

  assert.equal(echo.url, '/anything?x=***&y=%20a');
  assert.deepEqual(echo.query, { x: '***', y: ' a' });
});

test('a body of an unsupported media type is echoed as empty; a malformed body is rejected', async () => {
  const exchange = createExchange('/anything');
  const failWith = (name: 'unsupported_media_type' | 'invalid_request') => async () => {
    throw new Failure(name, 'Cannot read body');
  };

  const echo = await toEcho({ ...exchange, body: failWith('unsupported_media_type') });

  assert.deepEqual(echo.body, {});
  await assert.rejects(toEcho({ ...exchange, body: failWith('invalid_request') }));
});

test('parameters named like Object members are echoed as plain parameters', async () => {
  const { query } = await toEcho(createExchange('/anything?__proto__=x&constructor=y'));

  assert.deepEqual(Object.entries(query), [
    ['__proto__', 'x'],
    ['constructor', 'y'],
  ]);
});
