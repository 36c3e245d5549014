import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { ask as askServer } from '../../test/support/clients/ask.js';
import type { RequestParts } from '../../test/support/clients/exchange.js';
import { startOpenApiCheck } from '../../test/support/openapi/observer.js';
import { startAuth } from '../../test/support/servers/auth-system.js';
import { startHttp } from '../../test/support/servers/http-server.js';
import { authRoutes } from './routes.js';

const newAccount = {
  username: 'ada',
  password: 'correct horse battery',
  firstName: 'Ada',
  lastName: 'Lovelace',
};
const { username, password } = newAccount;

async function startServer(t: TestContext, jwks?: object) {
  const auth = await startAuth(t);
  const account = await auth.accounts.create(newAccount);
  const { port } = await startHttp(t, authRoutes({ ...auth, tokenType: 'Bearer', jwks }));
  const stopCheck = startOpenApiCheck(port);
  t.after(stopCheck);
  const ask = (method: string, path: string, asked: RequestParts = {}) =>
    askServer('http/1.1', port, method, path, asked);
  const login = async () =>
    (await ask('POST', '/login', { json: { username, password } })).body as Record<string, string>;
  return { ...auth, account, ask, login };
}

test('refreshes over the rate of an address cost no query', async (t) => {
  const { ask, statements } = await startServer(t);
  const refresh = async () => {
    const json = { token: randomBytes(128).toString('base64') };
    return (await ask('POST', '/token', { json })).status;
  };
  for (let count = 0; count < 30; count += 1) assert.equal(await refresh(), 401);
  statements.length = 0;

  assert.equal(await refresh(), 429);

  assert.deepEqual(statements, []);
});

test('a login response keeps the fields of the original service and is not cacheable', async (t) => {
  const { ask } = await startServer(t);

  for (const sent of [
    { json: { username, password } },
    { form: `username=${username}&password=${password.replaceAll(' ', '+')}` },
  ]) {
    const answer = await ask('POST', '/login', sent);

    assert.equal(answer.status, 200);
    assert.deepEqual(Object.keys(answer.body), [
      'accessToken',
      'tokenType',
      'accessTokenExpiresIn',
      'refreshToken',
      'refreshTokenExpiresIn',
    ]);
    assert.equal(answer.body['tokenType'], 'Bearer');
    assert.equal(typeof answer.body['accessTokenExpiresIn'], 'number');
    assert.equal(typeof answer.body['refreshTokenExpiresIn'], 'number');
    assert.equal(answer.headers['cache-control'], 'no-store');
    assert.equal(answer.headers['pragma'], 'no-cache');
  }
});

// [description, path, request, status, name, info]
const refusals: readonly (readonly [string, string, RequestParts, number, string, object?])[] = [
  ['no body', '/login', {}, 400, 'missing_required_parameter', { body: ['username', 'password'] }],
  [
    'no password',
    '/login',
    { json: { username } },
    400,
    'missing_required_parameter',
    { body: ['password'] },
  ],
  [
    'an empty password',
    '/login',
    { json: { username, password: '' } },
    400,
    'missing_required_parameter',
    { body: ['password'] },
  ],
  [
    'a name that is an object',
    '/login',
    { json: { username: { $ne: 1 }, password } },
    400,
    'missing_required_parameter',
    { body: ['username'] },
  ],
  ['a wrong password', '/login', { json: { username, password: 'x' } }, 401, 'bad_credentials'],
  ['an unknown user', '/login', { json: { username: 'x', password } }, 401, 'bad_credentials'],
  ['no token', '/token', { json: {} }, 400, 'missing_required_parameter', { body: ['token'] }],
  [
    'a token that is a number',
    '/token',
    { json: { token: 7 } },
    400,
    'missing_required_parameter',
    { body: ['token'] },
  ],
  ['an unknown token', '/token', { json: { token: 'x' } }, 401, 'invalid_token'],
  ['no access token', '/logout', {}, 401, 'bad_credentials'],
  ['a wrong access token', '/logout', { bearer: 'x' }, 401, 'invalid_token'],
];

for (const [what, path, asked, status, name, info] of refusals) {
  test(`a POST to ${path} with ${what} is rejected with ${status} ${name}`, async (t) => {
    const { ask } = await startServer(t);

    const answer = await ask('POST', path, asked);

    assert.equal(answer.status, status);
    assert.equal(answer.body['name'], name);
    if (info !== undefined) assert.deepEqual(answer.body['info'], info);
    assert.equal('www-authenticate' in answer.headers, status === 401);
    const isToken = name === 'invalid_token';
    assert.equal(answer.headers['www-authenticate']?.includes('error=') ?? false, isToken);
  });
}

test('two refreshes with the same token within the grace period get the same successor', async (t) => {
  const { ask, login } = await startServer(t);
  const { refreshToken: token } = await login();

  const [one, two] = await Promise.all([
    ask('POST', '/token', { json: { token } }),
    ask('POST', '/token', { form: `token=${encodeURIComponent(token ?? '')}` }),
  ]);

  assert.deepEqual([one.status, two.status], [200, 200]);
  assert.equal(one.body['refreshToken'], two.body['refreshToken']);
  assert.notEqual(one.body['refreshToken'], token);
  assert.equal(one.headers['cache-control'], 'no-store');
});

test('/me returns the logged-in user', async (t) => {
  const { ask, login, account } = await startServer(t);
  const { accessToken } = await login();

  const { status, body, headers } = await ask('GET', '/me', { bearer: accessToken ?? '' });

  assert.equal(status, 200);
  assert.match(String(body['sessionId']), /^[0-9a-f]{32}$/);
  assert.deepEqual(body, {
    id: account.id,
    username,
    firstName: 'Ada',
    lastName: 'Lovelace',
    sessionId: body['sessionId'],
  });
  assert.equal(headers['cache-control'], 'no-store');
});

// [scope, body, whether the session of the request and another one stay alive]
const scopes: readonly (readonly [string, object | undefined, readonly boolean[]])[] = [
  ['undefined', undefined, [false, true]],
  ['session', { scope: 'session' }, [false, true]],
  ['others', { scope: 'others' }, [true, false]],
  ['all', { scope: 'all' }, [false, false]],
];

for (const [what, json, alive] of scopes) {
  test(`logging out with scope ${what} ends exactly the sessions of that scope`, async (t) => {
    const { ask, login, endedSessions } = await startServer(t);
    const [here, there] = [await login(), await login()];
    const asked = { bearer: here['accessToken'] ?? '', ...(json !== undefined && { json }) };

    const answer = await ask('POST', '/logout', asked);

    assert.equal(answer.status, 204);
    const areAlive = [];
    for (const { accessToken = '', refreshToken: token } of [here, there]) {
      const me = await ask('GET', '/me', { bearer: accessToken });
      const refreshed = await ask('POST', '/token', { json: { token } });
      assert.equal(me.status, refreshed.status);
      areAlive.push(me.status === 200);
    }
    assert.deepEqual(areAlive, alive);
    assert.equal(
      endedSessions.flatMap(({ sessionIds }) => sessionIds).length,
      alive.includes(true) ? 1 : 2,
    );
    assert.equal(endedSessions[0]?.reason, 'logout');
  });
}

test('after logging out all sessions, a login in the same millisecond is valid at once', async (t) => {
  const { ask, login } = await startServer(t);
  const { accessToken: earlier = '' } = await login();

  await ask('POST', '/logout', { bearer: earlier, json: { scope: 'all' } });
  const { accessToken: later = '' } = await login();

  assert.equal((await ask('GET', '/me', { bearer: earlier })).status, 401);
  assert.equal((await ask('GET', '/me', { bearer: later })).status, 200);
});

test('an unknown scope is rejected and ends no session', async (t) => {
  const { ask, login } = await startServer(t);
  const { accessToken: bearer = '' } = await login();

  const answer = await ask('POST', '/logout', { bearer, json: { scope: 'global' } });

  assert.equal(answer.status, 400);
  assert.equal(answer.body['name'], 'invalid_request');
  assert.deepEqual(answer.body['info'], { body: ['scope'], allowed: ['session', 'others', 'all'] });
  assert.equal((await ask('GET', '/me', { bearer })).status, 200);
});

test('/anything echoes the request without its credentials', async (t) => {
  const { ask, login } = await startServer(t);
  const { accessToken: bearer = '' } = await login();

  const path = `/anything?a=1&a=2&access_token=${bearer}`;
  const { status, body } = await ask('PUT', path, { bearer, json: { x: [1] } });

  assert.equal(status, 200);
  assert.equal(JSON.stringify(body).includes(bearer), false);
  assert.equal(JSON.stringify(body['headers']).includes('authorization'), false);
  const { headers: _, ip: __, hostname: ___, ...echo } = body;
  assert.deepEqual(echo, {
    method: 'PUT',
    url: '/anything?a=1&a=2&access_token=***',
    params: {},
    query: { a: ['1', '2'], access_token: '***' },
    body: { x: [1] },
    protocol: 'https',
  });
  assert.equal((await ask('GET', '/anything', {})).status, 401);
});

test('the JWK set is served only with asymmetric keys', async (t) => {
  const withoutKeys = await startServer(t);
  const withKeys = await startServer(t, { keys: [] });

  assert.equal((await withoutKeys.ask('GET', '/.well-known/jwks.json', {})).status, 404);
  const answer = await withKeys.ask('GET', '/.well-known/jwks.json', {});

  assert.deepEqual(answer.body, { keys: [] });
  assert.equal(answer.headers['cache-control'], 'public, max-age=300');
});

test('log lines contain no token and no password', async (t) => {
  const { ask, login, lines } = await startServer(t);
  const one = await login();
  const { body: two } = await ask('POST', '/token', { json: { token: one['refreshToken'] } });
  await ask('POST', '/login', { json: { username: password, password: username } });
  await ask('GET', `/anything?token=${two['accessToken']}`, { bearer: String(two['accessToken']) });

  const log = JSON.stringify(lines);
  const secrets = [
    password,
    ...[one, two].flatMap((body) => [body['accessToken'], body['refreshToken']]),
  ];

  assert.ok(lines.length > 3);
  for (const text of secrets) assert.equal(log.includes(String(text)), false);
});
