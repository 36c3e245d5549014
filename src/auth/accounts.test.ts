import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openSession } from '../../test/support/servers/auth.js';
import { startAuth } from '../../test/support/servers/auth-system.js';

const newAccount = {
  username: 'ada',
  password: 'correct horse battery',
  firstName: 'Ada',
  lastName: 'Lovelace',
};

test('an account requires a valid name and password', async (t) => {
  const { accounts, users } = await startAuth(t);

  await assert.rejects(accounts.create({ ...newAccount, username: '' }), {
    name: 'invalid_request',
  });
  await assert.rejects(accounts.create({ ...newAccount, password: 'short' }), {
    name: 'invalid_request',
  });
  assert.deepEqual(await users.list(), []);
  await accounts.create(newAccount);
  await assert.rejects(accounts.create({ ...newAccount, username: 'ADA' }), { name: 'conflict' });
});

test('a weak password requires `weakPassword: true`', async (t) => {
  const { accounts } = await startAuth(t);

  await assert.rejects(accounts.create({ ...newAccount, password: 'test' }));

  assert.ok(await accounts.create({ ...newAccount, password: 'test' }, { weakPassword: true }));
});

test('setting a password ends all sessions except the given one', async (t) => {
  const { accounts, sessions, endedSessions } = await startAuth(t);
  const account = await accounts.create(newAccount);
  const [one, two] = [await openSession(sessions, account), await openSession(sessions, account)];

  await accounts.setPassword('Ada', 'another long password', one.sessionId);

  assert.deepEqual(endedSessions, [{ sessionIds: [two.sessionId], reason: 'password' }]);
  assert.ok(await sessions.findLive(one.sessionId));
  await assert.rejects(accounts.setPassword('ada', 'short'), { name: 'invalid_request' });
});

test('disabling an account ends all sessions; deleting it also removes the account', async (t) => {
  const { accounts, sessions, users, endedSessions } = await startAuth(t);
  const account = await accounts.create(newAccount);
  const one = await openSession(sessions, account);

  await accounts.disable('ada');
  await accounts.disable('ada');
  assert.deepEqual(endedSessions, [{ sessionIds: [one.sessionId], reason: 'disabled' }]);
  await accounts.enable('ada');
  const enabled = await users.findByName('ada');
  assert.ok(enabled);
  const two = await openSession(sessions, enabled);
  await accounts.delete('ada');

  assert.deepEqual(endedSessions.slice(1), [{ sessionIds: [two.sessionId], reason: 'admin' }]);
  assert.equal(await users.find(account.id), undefined);
});

test('operations on an unknown username fail with not_found', async (t) => {
  const { accounts } = await startAuth(t);

  for (const operation of [
    accounts.setPassword('ada', newAccount.password),
    accounts.disable('ada'),
    accounts.enable('ada'),
    accounts.delete('ada'),
  ]) {
    await assert.rejects(operation, { name: 'not_found' });
  }
});
