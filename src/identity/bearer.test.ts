import assert from 'node:assert/strict';
import { test } from 'node:test';
import { client, newUser, openSession } from '../../test/support/servers/auth.js';
import { startAuth } from '../../test/support/servers/auth-system.js';
import { sql } from '../db/database.js';
import type { Failure } from '../errors.js';

const withAuthorization = (...values: string[]) => ({
  ...{ id: 'request-1', ip: client.ipKey, headers: {}, signal: new AbortController().signal },
  headerValues: () => values,
});

const plainChallenge = 'Bearer realm="herald \\"test\\""';
const malformedChallenge = `${plainChallenge}, error="invalid_request"`;
const formatMessage = 'Header format is Authorization: Bearer token';

// [description, headers, message, name of the failure]
const refusals = [
  ['no header', [], 'Missing Authorization header', 'bad_credentials'],
  ['an empty header', [''], 'Missing Authorization header', 'bad_credentials'],
  ['another scheme', ['Basic YTpi'], formatMessage, 'bad_credentials'],
  ['another scheme without credentials', ['Negotiate'], formatMessage, 'bad_credentials'],
  ['a token without a scheme', ['eyJhbGciOiJIUzI1NiJ9.e30.c2ln'], formatMessage, 'bad_credentials'],
  ['two headers', ['Bearer a', 'Bearer b'], formatMessage, 'invalid_request'],
  ['two equal headers', ['Bearer a', 'Bearer a'], formatMessage, 'invalid_request'],
  ['two headers of other schemes', ['Basic a', 'Basic a'], formatMessage, 'invalid_request'],
  ['no token', ['Bearer'], formatMessage, 'invalid_request'],
  ['a space as the token', ['Bearer '], formatMessage, 'invalid_request'],
  ['a tab before the token', ['Bearer\ta'], formatMessage, 'invalid_request'],
  ['text after the token', ['Bearer a b'], formatMessage, 'invalid_request'],
  ['a space before the scheme', [' Bearer a'], formatMessage, 'invalid_request'],
] as const;

for (const [what, values, message, name] of refusals) {
  test(`a request with ${what} is rejected as ${name} with a matching challenge`, async (t) => {
    const { bearer } = await startAuth(t);

    for (const request of [
      bearer.authenticateUser(withAuthorization(...values)),
      bearer.authenticateService(withAuthorization(...values), 'publish'),
    ]) {
      await assert.rejects(request, (failure: Failure) => {
        assert.equal(failure.name, name);
        assert.equal(failure.message, message);
        // RFC 6750 §3.1: without usable credentials the challenge has no error code.
        const challenge = name === 'bad_credentials' ? plainChallenge : malformedChallenge;
        assert.equal(failure.headers['www-authenticate'], challenge);
        return true;
      });
    }
  });
}

function isInvalid(what: string, state = 'invalid') {
  return (failure: Failure) => {
    assert.equal(failure.name, `${state}_token`);
    assert.equal(
      failure.headers['www-authenticate'],
      `${plainChallenge}, error="invalid_token", error_description="The ${what} is ${state}"`,
    );
    return true;
  };
}

test('a token that is malformed or has an invalid signature is rejected without a query', async (t) => {
  const { bearer, sessions, users, sign, statements } = await startAuth(t);
  const { accessToken, refreshToken } = await openSession(
    sessions,
    await newUser(users),
    client,
    sign,
  );
  const [head, payload] = accessToken.split('.');
  const signature = Buffer.alloc(32, 1).toString('base64url');
  statements.length = 0;

  for (const token of ['none', accessToken.slice(0, -1), `${head}.${payload}.${signature}`]) {
    await assert.rejects(
      bearer.authenticateUser(withAuthorization(`Bearer ${token}`)),
      isInvalid('access token'),
    );
  }
  for (const key of ['none', 'hk_0123456789abcdef_short', accessToken]) {
    await assert.rejects(
      bearer.authenticateService(withAuthorization(`Bearer ${key}`), 'publish'),
      isInvalid('API key'),
    );
  }
  for (const token of ['none', refreshToken.slice(1), `${refreshToken}=`, 7]) {
    await assert.rejects(sessions.rotate(token, client, sign), { name: 'invalid_token' });
  }

  assert.deepEqual(statements, []);
});

test('an access token authenticates its user while the session is live', async (t) => {
  const { bearer, sessions, users, sign } = await startAuth(t);
  const account = await newUser(users);
  const { accessToken, sessionId } = await openSession(sessions, account, client, sign);

  for (const scheme of ['Bearer', 'bearer', 'BEARER', 'Bearer   ']) {
    const principal = await bearer.authenticateUser(withAuthorization(`${scheme} ${accessToken}`));
    assert.equal(principal.kind, 'user');
    assert.equal(principal.userId, account.id);
    assert.equal(principal.sessionId, sessionId);
    assert.equal(principal.user.username, account.username);
  }
  await sessions.end(sessionId, 'logout');

  await assert.rejects(
    bearer.authenticateUser(withAuthorization(`Bearer ${accessToken}`)),
    isInvalid('access token'),
  );
});

test('an expired access token is reported as expired', async (t) => {
  const { bearer, sessions, users, sign, time, accessTokens } = await startAuth(t);
  const { accessToken } = await openSession(sessions, await newUser(users), client, sign);

  time.now += accessTokens.lifeMs + 60_000;

  const request = bearer.authenticateUser(withAuthorization(`Bearer ${accessToken}`));
  await assert.rejects(request, isInvalid('access token', 'expired'));
});

test('after a global logout, access tokens issued before it are rejected and new ones are accepted', async (t) => {
  const { bearer, sessions, users, sign } = await startAuth(t);
  const account = await newUser(users);
  const old = await openSession(sessions, account, client, sign);
  const authenticate = (token: string) =>
    bearer.authenticateUser(withAuthorization(`Bearer ${token}`));

  await sessions.endAll(account.id, 'logout');
  const next = await openSession(sessions, account, client, sign); // In the same millisecond.

  await assert.rejects(authenticate(old.accessToken), isInvalid('access token'));
  assert.equal((await authenticate(next.accessToken)).sessionId, next.sessionId);
});

test('access tokens of a disabled or deleted user are rejected', async (t) => {
  const { bearer, sessions, users, sign } = await startAuth(t);
  for (const change of ['disable', 'delete'] as const) {
    const account = await newUser(users);
    const { accessToken } = await openSession(sessions, account, client, sign);

    await users[change](account.id);

    const request = bearer.authenticateUser(withAuthorization(`Bearer ${accessToken}`));
    await assert.rejects(request, isInvalid('access token'));
  }
});

test('a token with an unknown session or the session of another user is rejected', async (t) => {
  const { bearer, sessions, users, accessTokens } = await startAuth(t);
  const [one, two] = [await newUser(users), await newUser(users)];
  const { sessionId } = await openSession(sessions, one);
  const names = { firstName: 'A', lastName: 'B' };

  for (const claims of [
    { userId: two.id, sessionId },
    { userId: one.id, sessionId: '0'.repeat(32) },
  ]) {
    const token = await accessTokens.sign({ ...claims, ...names });
    await assert.rejects(
      bearer.authenticateUser(withAuthorization(`Bearer ${token}`)),
      isInvalid('access token'),
    );
  }
});

test('an API key authenticates its service until it is revoked', async (t) => {
  const { bearer, apiKeys } = await startAuth(t);
  const { key, id } = await apiKeys.create({ name: 'billing', scopes: ['publish'] });

  const principal = await bearer.authenticateService(withAuthorization(`Bearer ${key}`), 'publish');
  assert.deepEqual(principal, {
    ...{ kind: 'service', keyId: id, name: 'billing', scopes: ['publish'] },
    ...{ userPrefix: undefined, topics: undefined, expiresAt: undefined, headSeq: 0 },
  });
  await apiKeys.revoke(id);

  const request = bearer.authenticateService(withAuthorization(`Bearer ${key}`), 'publish');
  await assert.rejects(request, isInvalid('API key'));
});

test('an API key is accepted until the millisecond in which it expires', async (t) => {
  const { bearer, apiKeys, time } = await startAuth(t);
  const expiresAt = time.now + 1000;
  const { key } = await apiKeys.create({ name: 'billing', scopes: ['publish'], expiresAt });
  const authenticate = () =>
    bearer.authenticateService(withAuthorization(`Bearer ${key}`), 'publish');

  time.now = expiresAt - 1;
  assert.equal((await authenticate()).expiresAt, expiresAt);
  time.now = expiresAt;

  await assert.rejects(authenticate(), isInvalid('API key', 'expired'));
});

test('a refused request counts towards the rate of its API key, and a request over this rate gets 429', async (t) => {
  const { bearer, apiKeys, time, lines } = await startAuth(t);
  const limits = { scopes: ['publish'], rate: '3/3000' };
  const { key, id } = await apiKeys.create({ name: 'limited', ...limits });
  const { key: otherKey } = await apiKeys.create({ name: 'other', ...limits });
  const authenticate = (text: string, scope: 'publish' | 'metrics' = 'publish') =>
    bearer.authenticateService(withAuthorization(`Bearer ${text}`), scope);

  await authenticate(key);
  await authenticate(key);
  await assert.rejects(authenticate(key, 'metrics'), { name: 'insufficient_scope' });
  await assert.rejects(authenticate(key), (failure: Failure) => {
    assert.equal(failure.name, 'too_many_requests');
    assert.equal(failure.headers['retry-after'], '1');
    return true;
  });
  assert.ok(await authenticate(otherKey));
  time.now += 1000;
  assert.ok(await authenticate(key));
  await assert.rejects(authenticate(key), { name: 'too_many_requests' });

  const refused = lines.filter((line) => line['event'] === 'excess_rate_limit_exceeded');
  assert.deepEqual(
    refused.map(({ keyId, reason }) => [keyId, reason]),
    [
      [id, 'apiKey'],
      [id, 'apiKey'],
    ],
  );
});

// [value of Sec-Fetch-Site, name of the failure; undefined: the key is accepted]
const sites = [
  ['cross-site', 'key_in_browser'],
  ['same-site', 'key_in_browser'],
  ['same-origin', undefined],
  ['none', undefined],
] as const;

for (const [site, expected] of sites) {
  test(`an API key with Sec-Fetch-Site: ${site} is ${expected ? 'refused' : 'accepted'}`, async (t) => {
    const { bearer, apiKeys, sessions, users, sign } = await startAuth(t);
    const { key } = await apiKeys.create({ name: 'billing', scopes: ['publish'] });
    const { accessToken } = await openSession(sessions, await newUser(users), client, sign);
    const headers = { 'sec-fetch-site': site };
    const from = (text: string) => ({ ...withAuthorization(`Bearer ${text}`), headers });

    const request = bearer.authenticateService(from(key), 'publish');
    if (expected === undefined) assert.ok(await request);
    else await assert.rejects(request, { name: expected, status: 403 });

    // The header has an effect only on API keys.
    await assert.rejects(bearer.authenticateService(from(accessToken), 'publish'), {
      name: 'invalid_token',
    });
    assert.ok(await bearer.authenticateUser(from(accessToken)));
  });
}

test('an API key that pages send is logged by its id, once a minute', async (t) => {
  const { bearer, apiKeys, lines } = await startAuth(t);
  const { id, key } = await apiKeys.create({ name: 'billing', scopes: ['publish'] });
  const source = {
    ...withAuthorization(`Bearer ${key}`),
    headers: { 'sec-fetch-site': 'cross-site' },
  };

  for (let count = 0; count < 3; count += 1)
    await assert.rejects(bearer.authenticateService(source, 'publish'), { name: 'key_in_browser' });

  const logged = lines.filter(({ phrase }) => phrase === 'API key sent by a page');
  assert.deepEqual(
    logged.map(({ level, keyId }) => [level, keyId]),
    [['warn', id]],
  );
  assert.equal(JSON.stringify(logged).includes(key), false);
});

test('an API key without the required scope is refused with insufficient_scope and that scope', async (t) => {
  const { bearer, apiKeys, db } = await startAuth(t);
  const { key } = await apiKeys.create({ name: 'billing', scopes: ['publish'] });
  await db.execute(sql`update api_keys set scopes = 'other'`);

  await assert.rejects(
    bearer.authenticateService(withAuthorization(`Bearer ${key}`), 'publish'),
    (failure: Failure) => {
      assert.equal(failure.name, 'insufficient_scope');
      assert.equal(
        failure.headers['www-authenticate'],
        `${plainChallenge}, error="insufficient_scope", scope="publish"`,
      );
      return true;
    },
  );
});

test('an address with too many invalid API keys gets too_many_requests, without a query, except for known keys', async (t) => {
  const { bearer, apiKeys, statements } = await startAuth(t);
  const { key } = await apiKeys.create({ name: 'billing', scopes: ['publish'] });
  const { key: unusedKey } = await apiKeys.create({ name: 'new', scopes: ['publish'] });
  const authenticate = (text: string, ip = client.ipKey) =>
    bearer.authenticateService({ ...withAuthorization(`Bearer ${text}`), ip }, 'publish');
  await authenticate(key);
  const unknownKey = `hk_${'0'.repeat(16)}_${'A'.repeat(43)}`;

  for (let count = 0; count < 30; count += 1)
    await assert.rejects(authenticate(unknownKey), isInvalid('API key'));
  statements.length = 0;
  await assert.rejects(authenticate(unknownKey), { name: 'too_many_requests' });
  await assert.rejects(authenticate(unusedKey), { name: 'too_many_requests' });

  assert.deepEqual(statements, []);
  assert.ok(await authenticate(key));
  assert.ok(await authenticate(unusedKey, '198.51.100.1'));
  assert.ok(await authenticate(unusedKey)); // Known from now on.
});

test('an API key is rejected as an access token, and vice versa', async (t) => {
  const { bearer, apiKeys, sessions, users, sign } = await startAuth(t);
  const { key } = await apiKeys.create({ name: 'billing', scopes: ['publish'] });
  const { accessToken } = await openSession(sessions, await newUser(users), client, sign);

  await assert.rejects(
    bearer.authenticateUser(withAuthorization(`Bearer ${key}`)),
    isInvalid('access token'),
  );
  const request = bearer.authenticateService(withAuthorization(`Bearer ${accessToken}`), 'publish');
  await assert.rejects(request, isInvalid('API key'));
});
