import assert from 'node:assert/strict';
import { test } from 'node:test';
import { client } from '../../test/support/servers/auth.js';
import { startAuth } from '../../test/support/servers/auth-system.js';
import { until } from '../../test/support/until.js';

const rightPassword = 'correct horse battery';

async function startLogin(t: Parameters<typeof startAuth>[0]) {
  const auth = await startAuth(t);
  const { accounts, login, sign, lines } = auth;
  const names = { firstName: 'Ada', lastName: 'Lovelace' };
  const account = await accounts.create({ username: 'ada', password: rightPassword, ...names });
  const attempt = (password: string, username = 'ada', ipKey = client.ipKey) =>
    login.open(
      { username, password, client: { ...client, ipKey }, signal: new AbortController().signal },
      sign,
    );
  const events = () =>
    lines.filter(({ audit }) => audit === true).map(({ event, reason }) => ({ event, reason }));
  const count = (event: string) => lines.filter((line) => line['event'] === event).length;
  return { ...auth, account, attempt, events, count };
}

test('the right password opens a session, with any spelling of the name', async (t) => {
  const { attempt, account, bearer, events, hashing } = await startLogin(t);
  hashing.length = 0;

  const { accessToken } = await attempt(rightPassword, ' \uff21DA ');

  assert.deepEqual(hashing, ['verifyPassword']);

  const shown = {
    ...{ id: 'request-1', ip: client.ipKey, headers: {}, signal: new AbortController().signal },
    headerValues: () => [`Bearer ${accessToken}`],
  };
  assert.equal((await bearer.authenticateUser(shown)).userId, account.id);
  assert.deepEqual(events().slice(-2), [
    { event: 'session_created', reason: undefined },
    { event: 'authn_login_success', reason: undefined },
  ]);
});

test('a password matches in any Unicode spelling', async (t) => {
  const { attempt, accounts } = await startLogin(t);
  const names = { firstName: '', lastName: '' };
  await accounts.create({ username: 'jose', password: 'contrase\u00f1a larga', ...names });

  assert.ok(await attempt('contrasen\u0303a larga', 'jose'));
});

const failingLogins = [
  ['a wrong password', 'wrong password', 'ada'],
  ['an unknown user', rightPassword, 'nobody'],
  ['an invalid name', rightPassword, 'a\u0000da'],
  ['a lone surrogate in the name', rightPassword, '\ud800'],
  ['a lone surrogate in the password', '\ud800', 'ada'],
  ['a name of 5000 characters', rightPassword, 'x'.repeat(5000)],
  ['a password of 5000 characters', 'x'.repeat(5000), 'ada'],
  ['SQL as a name', rightPassword, "' or 1=1 --"],
] as const;

for (const [what, password, username] of failingLogins) {
  test(`a login with ${what} is rejected with bad_credentials after one verification`, async (t) => {
    const { attempt, events, hashing } = await startLogin(t);
    hashing.length = 0;

    await assert.rejects(attempt(password, username), {
      name: 'bad_credentials',
      message: 'Username or password is incorrect',
    });

    assert.equal(events().at(-1)?.event, 'authn_login_fail');
    assert.deepEqual(hashing, ['verifyPassword']);
  });
}

test('queries, hashing and responses do not disclose whether a user exists', async (t) => {
  const { attempt, accounts, hashing, statements } = await startLogin(t);
  const names = { firstName: '', lastName: '' };
  for (const username of ['bob', 'eve']) {
    await accounts.create({ username, password: rightPassword, ...names });
    await accounts.disable(username);
  }
  let lastHost = 0;
  /** Records the work and the response of a login, each from a different IP. */
  const trace = async (password: string, username: string) => {
    hashing.length = 0;
    statements.length = 0;
    lastHost += 1;
    const failure = await attempt(password, username, `198.51.100.${lastHost}`).then(
      () => undefined,
      ({ name, message, status, info, headers }) => ({ name, message, status, info, headers }),
    );
    return { failure, hashing: [...hashing], statements: [...statements] };
  };

  // After 20 failures the username is blocked, whether or not it exists.
  for (let tries = 0; tries < 21; tries += 1) {
    const wrongPassword = await trace('wrong password', 'ada');
    const unknownUser = await trace('wrong password', 'nobody');
    const disabledUser = await trace('wrong password', 'bob');
    const disabledRight = await trace(rightPassword, 'eve');

    assert.equal(wrongPassword.failure?.name, tries < 20 ? 'bad_credentials' : 'too_many_requests');
    assert.deepEqual(unknownUser, wrongPassword);
    assert.deepEqual(disabledUser, wrongPassword);
    assert.deepEqual(disabledRight, wrongPassword);
  }
});

test('an unknown username is not logged in plain text', async (t) => {
  const { attempt, lines } = await startLogin(t);

  await assert.rejects(attempt('x', 'my secret password'));
  await assert.rejects(attempt('x', 'my secret password'));

  const fails = lines.filter(({ event }) => event === 'authn_login_fail');
  assert.equal(fails[0]?.['unknownUser'], fails[1]?.['unknownUser']);
  assert.match(String(fails[0]?.['unknownUser']), /^[0-9a-f]{16}$/);
  assert.equal(JSON.stringify(lines).includes('my secret'), false);
});

test('a login is rejected while the account is disabled and succeeds once it is enabled', async (t) => {
  const { attempt, accounts, count } = await startLogin(t);
  await accounts.disable('ada');

  await assert.rejects(attempt(rightPassword), { name: 'bad_credentials' });
  await accounts.enable('ADA');

  assert.ok(await attempt(rightPassword));
  assert.equal(count('authn_login_fail'), 1);
});

test('delays do not disclose that the password of a disabled account is right', async (t) => {
  const { attempt, accounts, count } = await startLogin(t);
  await accounts.disable('ada');

  for (let tries = 0; tries < 5; tries += 1) {
    await assert.rejects(attempt(rightPassword), { name: 'bad_credentials' });
  }

  await assert.rejects(attempt(rightPassword), { name: 'too_many_requests' });
  assert.equal(count('authn_login_fail_max'), 1);
});

test('of thirty simultaneous wrong passwords at most five are verified', async (t) => {
  const { attempt, count, hashing } = await startLogin(t);
  hashing.length = 0;

  const results = await Promise.allSettled(Array.from({ length: 30 }, () => attempt('wrong')));

  assert.equal(hashing.length, 5);

  const names = results.map((one) => (one.status === 'rejected' ? one.reason.name : 'passed'));
  assert.equal(names.filter((name) => name === 'bad_credentials').length, 5);
  assert.equal(names.filter((name) => name === 'too_many_requests').length, 25);
  assert.equal(count('authn_login_fail'), 5);
  assert.equal(count('authn_login_fail_max'), 1);
  assert.equal(count('authn_login_lock'), 25);
});

test('thirty simultaneous right passwords all succeed', async (t) => {
  const { attempt, sessions, account } = await startLogin(t);

  await Promise.all(Array.from({ length: 30 }, () => attempt(rightPassword)));

  assert.equal((await sessions.list(account.id)).length, 30);
});

test('the thirty-first login of a minute from one IP is rejected, from another IP it is not', async (t) => {
  const { attempt, count } = await startLogin(t);
  for (let tries = 0; tries < 30; tries += 1) await attempt(rightPassword);

  await assert.rejects(attempt(rightPassword), { name: 'too_many_requests' });

  assert.equal(count('excess_rate_limit_exceeded'), 1);
  assert.ok(await attempt(rightPassword, 'ada', '198.51.100.7'));
});

test('a login over the rate costs neither a query nor a hash', async (t) => {
  const { attempt, hashing, statements } = await startLogin(t);
  for (let tries = 0; tries < 30; tries += 1) await attempt(rightPassword);
  hashing.length = 0;
  statements.length = 0;

  for (const username of ['ada', 'nobody']) {
    await assert.rejects(attempt(rightPassword, username), { name: 'too_many_requests' });
  }

  assert.deepEqual(hashing, []);
  assert.deepEqual(statements, []);
});

test('a login that succeeds after failures has its own audit event', async (t) => {
  const { attempt, count } = await startLogin(t);
  await assert.rejects(attempt('wrong'));

  await attempt(rightPassword);

  assert.equal(count('authn_login_successafterfail'), 1);
});

test('a login of a disconnected client is aborted', async (t) => {
  const { login, sign, sessions, account } = await startLogin(t);
  const attempt = { username: 'ada', password: rightPassword, client, signal: AbortSignal.abort() };

  await assert.rejects(login.open(attempt, sign), { name: 'AbortError' });

  assert.deepEqual(await sessions.list(account.id), []);
});

test('a hash with an outdated cost is replaced after a login', async (t) => {
  const { attempt, users, account, oldDigest } = await startLogin(t);
  const old = await oldDigest(rightPassword);
  await users.replaceDigest(account.id, account.password, old);

  await attempt(rightPassword);

  let digest = old;
  await until(async () => {
    digest = (await users.find(account.id))?.password ?? old;
    return digest.hash !== old.hash;
  });
  assert.deepEqual((await users.find(account.id))?.passwordChangedAt, account.passwordChangedAt);
  assert.ok(await attempt(rightPassword));
});
