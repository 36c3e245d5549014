import assert from 'node:assert/strict';
import { testOnDialects } from '../../test/support/databases/dialects.js';
import { newUser, sessionsFor } from '../../test/support/servers/auth.js';
import { sql } from '../db/database.js';

const test = await testOnDialects('users');

const password = { hash: 'one', pepperVersion: 2 };

test('a user is found by any spelling of the name and by id', async (t) => {
  const { users, time } = await sessionsFor(t);

  const created = await users.create({
    username: ' José ',
    firstName: 'José',
    lastName: '',
    password,
  });

  assert.match(created.id, /^[1-9]\d*$/);
  assert.deepEqual(created, {
    id: created.id,
    username: 'José',
    firstName: 'José',
    lastName: '',
    password,
    passwordChangedAt: time.now,
    disabledAt: undefined,
    lastLoginAt: undefined,
    createdAt: time.now,
    rights: new Map(),
  });
  assert.deepEqual(await users.findByName('JOSE\u0301'), created);
  assert.deepEqual(await users.find(created.id), created);
});

test('a username that is taken in another spelling is rejected', async (t) => {
  const { users } = await sessionsFor(t);
  const names = { firstName: 'A', lastName: 'B', password };
  await users.create({ username: 'ada', ...names });

  await assert.rejects(users.create({ username: '\uff21DA', ...names }), { name: 'conflict' });
  await assert.rejects(users.create({ username: 'a\nb', ...names }), { name: 'invalid_request' });
});

test('an invalid name or id finds no user', async (t) => {
  const { users } = await sessionsFor(t);
  await newUser(users);

  for (const name of ['', '\ud800', "' or 1=1 --", 'x'.repeat(10_000), '%']) {
    assert.equal(await users.findByName(name), undefined);
  }
  for (const id of ['', '0', '-1', '1.0', '01', '1e0', 'NaN', '9'.repeat(30), "1' or '1'='1"]) {
    assert.equal(await users.find(id), undefined);
  }
});

test('list returns the users after the given id', async (t) => {
  const { users } = await sessionsFor(t);
  const created = [await newUser(users), await newUser(users), await newUser(users)];

  const firstPage = await users.list({ limit: 2 });
  const secondPage = await users.list({ afterId: firstPage.at(-1)?.id ?? '' });

  assert.deepEqual([...firstPage, ...secondPage], created);
});

test('a new password replaces the digest and increases the time of its change', async (t) => {
  const { users } = await sessionsFor(t);
  const { id, passwordChangedAt } = await newUser(users);
  const newDigest = { hash: 'two', pepperVersion: 0 };

  assert.equal(await users.setPassword(id, newDigest), true);

  const changed = await users.find(id);
  assert.deepEqual(changed?.password, newDigest);
  assert.equal(changed?.passwordChangedAt, passwordChangedAt + 1, 'also in the same millisecond');
  assert.equal(await users.setPassword('999', newDigest), false);
});

test('replaceDigest changes nothing if the digest has changed since it was read', async (t) => {
  const { users } = await sessionsFor(t);
  const account = await newUser(users);
  const newDigest = { hash: 'renewed', pepperVersion: 3 };

  assert.equal(await users.replaceDigest(account.id, account.password, newDigest), true);
  assert.equal(await users.replaceDigest(account.id, account.password, password), false);

  const renewed = await users.find(account.id);
  assert.deepEqual(renewed?.password, newDigest);
  assert.equal(renewed?.passwordChangedAt, account.passwordChangedAt);
});

test('deleting a user deletes what is stored about the topics of that user', async (t) => {
  const { db, users } = await sessionsFor(t);
  const { id } = await newUser(users);
  for (const userId of [id, 'other']) {
    await db.execute(sql`insert into topic_losses (user_id, seq) values (${userId}, 1)`);
    await db.execute(
      sql`insert into topic_members (user_id, topic, since) values (${userId}, 'a', 1)`,
    );
    await db.execute(
      sql`insert into topic_revocations (user_id, topic, seq, created_at)
        values (${userId}, 'b', 1, 0)`,
    );
  }

  await users.delete(id);

  const left = await db.query<{ user_id: string }>(
    sql`select user_id from topic_losses union all select user_id from topic_members
      union all select user_id from topic_revocations`,
  );
  assert.deepEqual(
    left.map((row) => row.user_id),
    ['other', 'other', 'other'],
  );
});

test('disable and enable return whether they changed the account', async (t) => {
  const { users, time } = await sessionsFor(t);
  const { id } = await newUser(users);

  assert.deepEqual([await users.disable(id), await users.disable(id)], [true, false]);
  assert.equal((await users.find(id))?.disabledAt, time.now);
  assert.deepEqual([await users.enable(id), await users.enable(id)], [true, false]);
  assert.deepEqual([await users.delete(id), await users.delete(id)], [true, false]);
  assert.equal(await users.find(id), undefined);
});
