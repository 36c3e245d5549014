import assert from 'node:assert/strict';
import { testOnDialects } from '../../../test/support/databases/dialects.js';
import { databaseFor } from '../../../test/support/databases/test-database.js';
import { withStatementLog } from '../../../test/support/recording/statement-hooks.js';
import {
  absoluteMs,
  client,
  graceMs,
  idleMs,
  newUser,
  openSession,
  sessionsFor,
  sign,
} from '../../../test/support/servers/auth.js';
import { sql } from '../../db/database.js';
import { SqlLogStore } from '../../event-log/sql/sql-log-store.js';
import { parseControlEntry } from '../../events/control-entry.js';
import { insertSession } from './session-table.js';

const test = await testOnDialects('sessions');

const day = 86_400_000;

test('a session is live until its idle expiry', async (t) => {
  const { sessions, users, time } = await sessionsFor(t);
  const account = await newUser(users);

  const grant = await openSession(sessions, account);

  assert.match(grant.sessionId, /^[0-9a-f]{32}$/);
  assert.equal(grant.accessToken, `access ${account.id} ${grant.sessionId}`);
  assert.equal(grant.refreshTokenExpiresInMs, idleMs);
  const live = await sessions.findLive(grant.sessionId);
  assert.equal(live?.userId, account.id);
  assert.equal(live?.user.username, account.username);
  assert.equal(live?.expiresAt, time.now + idleMs);
  time.now += idleMs - 1;
  assert.ok(await sessions.findLive(grant.sessionId));
  time.now += 1;
  assert.equal(await sessions.findLive(grant.sessionId), undefined);
});

test('the rights of a session are confirmed until they change, also those of an account without rights', async (t) => {
  const db = await databaseFor(t);
  const { sessions, users } = await sessionsFor(t, { db });
  const account = await newUser(users);
  const { sessionId } = await openSession(sessions, account);
  const find = async () => {
    const session = await sessions.findLive(sessionId);
    assert.ok(session);
    return session;
  };
  const confirm = async ({ confirmRights }: Awaited<ReturnType<typeof find>>) =>
    db.transaction(confirmRights);

  const without = await find();
  assert.deepEqual([without.hasOwnRights, await confirm(without)], [false, true]);
  await users.setRights(account.id, new Map([['a', ['listen']]]));
  const withRights = await find();

  assert.equal(await confirm(without), false);
  assert.deepEqual([withRights.hasOwnRights, await confirm(withRights)], [true, true]);
  await users.setRights(account.id, new Map());
  assert.equal(await confirm(withRights), false);
});

test('simultaneous lookups share a query, and each caller gets its session', async (t) => {
  const statements: string[] = [];
  const db = withStatementLog(await databaseFor(t), statements);
  const { sessions, users } = await sessionsFor(t, { db });
  const [ada, bob] = [await newUser(users), await newUser(users)];
  const [first, second] = [await openSession(sessions, ada), await openSession(sessions, bob)];
  const ids = [second.sessionId, 'f'.repeat(32), first.sessionId, second.sessionId];
  statements.length = 0;

  const found = await Promise.all(ids.map((id) => sessions.findLive(id)));

  assert.deepEqual(
    found.map((session) => session?.userId),
    [bob.id, undefined, ada.id, bob.id],
  );
  assert.equal(statements.length, db.dialect === 'sqlite' ? 3 : 1); // On SQLite two batches of one lookup start at once, and the others share the third.
});

test('a session that has ended costs one query per ten seconds, however often it is looked up', async (t) => {
  const statements: string[] = [];
  const db = withStatementLog(await databaseFor(t), statements);
  const { sessions, users, time } = await sessionsFor(t, { db });
  const [ended, live] = [
    await openSession(sessions, await newUser(users)),
    await openSession(sessions, await newUser(users)),
  ];
  await sessions.end(ended.sessionId, 'logout');
  const lookUp = async (sessionId: string) => {
    statements.length = 0;
    const found = await sessions.findLive(sessionId);
    return { isLive: found !== undefined, queries: statements.length };
  };

  for (const id of [ended.sessionId, 'f'.repeat(32)]) {
    assert.deepEqual(await lookUp(id), { isLive: false, queries: 1 });
    assert.deepEqual(await lookUp(id), { isLive: false, queries: 0 });
  }
  time.now += 9999;
  assert.deepEqual(await lookUp(ended.sessionId), { isLive: false, queries: 0 });
  time.now += 1;
  assert.deepEqual(await lookUp(ended.sessionId), { isLive: false, queries: 1 });
  for (let count = 0; count < 2; count += 1)
    assert.deepEqual(await lookUp(live.sessionId), { isLive: true, queries: 1 });
});

test('opening a session records the login time of the user and an audit line', async (t) => {
  const { sessions, users, time, lines } = await sessionsFor(t);
  const account = await newUser(users);

  const { sessionId } = await openSession(sessions, account);

  assert.equal((await users.find(account.id))?.lastLoginAt, time.now);
  const line = lines.find(({ event }) => event === 'session_created');
  assert.equal(line?.['audit'], true);
  assert.equal(line?.['sessionId'], sessionId);
  assert.equal(line?.['requestId'], client.requestId);
});

test('refreshing extends a session up to its absolute expiry', async (t) => {
  const { sessions, users, time } = await sessionsFor(t);
  let grant = await openSession(sessions, await newUser(users));
  const openedAt = time.now;

  time.now += idleMs - 1;
  grant = await sessions.rotate(grant.refreshToken, client, sign);
  time.now += idleMs - 1;
  grant = await sessions.rotate(grant.refreshToken, client, sign);
  assert.equal(grant.refreshTokenExpiresInMs, openedAt + absoluteMs - time.now);
  time.now = openedAt + absoluteMs - 1;
  grant = await sessions.rotate(grant.refreshToken, client, sign);
  time.now += 1;

  await assert.rejects(sessions.rotate(grant.refreshToken, client, sign), {
    name: 'expired_token',
  });
  assert.equal(await sessions.findLive(grant.sessionId), undefined);
});

test('a login over the limit per user ends the least recently refreshed session', async (t) => {
  const { sessions, users, time, endedSessions } = await sessionsFor(t, { perUserMax: 3 });
  const account = await newUser(users);
  const other = await openSession(sessions, await newUser(users));
  const [first, second] = [
    await openSession(sessions, account),
    await openSession(sessions, account),
  ];
  time.now += 1;
  await sessions.rotate(first.refreshToken, client, sign);
  await openSession(sessions, account);
  assert.deepEqual(endedSessions, []);

  const newest = await openSession(sessions, account);

  assert.deepEqual(endedSessions, [{ sessionIds: [second.sessionId], reason: 'limit' }]);
  assert.equal((await sessions.list(account.id)).length, 3);
  assert.ok(await sessions.findLive(newest.sessionId));
  assert.ok(await sessions.findLive(first.sessionId));
  assert.ok(await sessions.findLive(other.sessionId));
});

test('simultaneous logins do not exceed the limit per user', async (t) => {
  const { sessions, users } = await sessionsFor(t, { perUserMax: 3 });
  const account = await newUser(users);

  await Promise.all(Array.from({ length: 12 }, () => openSession(sessions, account)));

  assert.equal((await sessions.list(account.id)).length, 3);
});

const changes = [
  ['the password was changed', 'setPassword'],
  ['the account was disabled', 'disable'],
  ['the account was deleted', 'delete'],
] as const;

for (const [what, change] of changes) {
  test(`a login opens no session if ${what} after the password was verified`, async (t) => {
    const { sessions, users } = await sessionsFor(t);
    const account = await newUser(users);
    if (change === 'setPassword') {
      await users.setPassword(account.id, { hash: 'two', pepperVersion: 0 });
    } else {
      await users[change](account.id);
    }

    assert.equal(await sessions.open(account, client, sign), undefined);

    assert.deepEqual(await sessions.list(account.id), []);
  });
}

test('a login succeeds although the password was rehashed since the account was read', async (t) => {
  const { sessions, users } = await sessionsFor(t);
  const account = await newUser(users);
  await users.replaceDigest(account.id, account.password, { hash: 'new', pepperVersion: 1 });

  assert.ok(await sessions.open(account, client, sign));
});

test('no session is opened when signing the access token fails', async (t) => {
  const { sessions, users } = await sessionsFor(t);
  const account = await newUser(users);
  const failingSigner = async () => {
    throw new Error('no thread is free');
  };

  await assert.rejects(sessions.open(account, client, failingSigner));

  assert.deepEqual(await sessions.list(account.id), []);
});

test('ending a session ends only this session, and only once', async (t) => {
  const { sessions, users, endedSessions } = await sessionsFor(t);
  const account = await newUser(users);
  const [one, two] = [await openSession(sessions, account), await openSession(sessions, account)];

  assert.equal(await sessions.end(one.sessionId, 'logout'), true);
  assert.equal(await sessions.end(one.sessionId, 'admin'), false);

  assert.deepEqual(endedSessions, [{ sessionIds: [one.sessionId], reason: 'logout' }]);
  assert.equal(await sessions.findLive(one.sessionId), undefined);
  assert.ok(await sessions.findLive(two.sessionId));
});

test('every way to end sessions appends one control entry, and ending them again appends none', async (t) => {
  const { db, time, sessions, users, wallClock } = await sessionsFor(t, { perUserMax: 2 });
  await SqlLogStore.open(db, { wallClock, newEpoch: 'e' });
  const readNewEntries = async () => {
    const rows = await db.query<{ control: string }>(sql`select control from events order by seq`);
    await db.execute(sql`delete from events where seq > 0`);
    return rows.map(({ control }) => parseControlEntry(control));
  };
  const ended = (...sessionIds: string[]) => [{ kind: 'sessions_ended', sessionIds }];
  const account = await newUser(users);
  const first = await openSession(sessions, account);
  time.now += 1;
  const second = await openSession(sessions, account);
  assert.deepEqual(await readNewEntries(), []);

  time.now += 1;
  const third = await openSession(sessions, account);
  assert.deepEqual(await readNewEntries(), ended(first.sessionId), 'session limit');

  assert.equal(await sessions.end(second.sessionId, 'logout'), true);
  assert.equal(await sessions.end(second.sessionId, 'logout'), false);
  assert.deepEqual(await readNewEntries(), ended(second.sessionId));

  await sessions.rotate(third.refreshToken, client, sign);
  assert.deepEqual(await readNewEntries(), []);
  time.now += graceMs + 1;
  await assert.rejects(sessions.rotate(third.refreshToken, client, sign));
  await assert.rejects(sessions.rotate(third.refreshToken, client, sign));
  assert.deepEqual(await readNewEntries(), ended(third.sessionId), 'reused token');

  const fourth = await openSession(sessions, account);
  const fail = async () => {
    throw new Error('on purpose');
  };
  await assert.rejects(sessions.endAll(account.id, 'password', { first: fail }), /on purpose/);
  assert.deepEqual(await readNewEntries(), []);
  await sessions.endAll(account.id, 'password');
  await sessions.endAll(account.id, 'password');
  assert.deepEqual(await readNewEntries(), ended(fourth.sessionId));
});

test('concurrent requests to end the same sessions share transactions', async (t) => {
  const db = await databaseFor(t);
  let count = 0;
  const { sessions, users } = await sessionsFor(t, {
    db: {
      dialect: db.dialect,
      query: (statement) => db.query(statement),
      execute: (statement) => db.execute(statement),
      transaction: (work) => {
        count += 1;
        return db.transaction(work);
      },
      close: () => db.close(),
    },
  });
  const account = await newUser(users);
  const kept = await openSession(sessions, account);
  const ended = await openSession(sessions, account);
  const repeat = <Result>(run: () => Promise<Result>) =>
    Promise.all(Array.from({ length: 50 }, run));

  count = 0;
  const others = await repeat(() =>
    sessions.endAll(account.id, 'logout', { except: kept.sessionId }),
  );
  assert.equal(count, 2); // Requests that arrive during a transaction share the next one.
  assert.deepEqual([others[0], others[1], others[49]], [[ended.sessionId], [], []]);

  count = 0;
  const own = await repeat(() => sessions.end(kept.sessionId, 'logout'));
  assert.equal(count, 2);
  assert.deepEqual([own[0], own[1], own[49]], [true, false, false]);
});

test('more than 500 sessions of a user end together', async (t) => {
  const { db, sessions, users, wallClock } = await sessionsFor(t);
  const { id: userId } = await newUser(users);
  const times = { now: wallClock(), idleExpiresAt: 1e15, absoluteExpiresAt: 1e15 };
  for (let number = 1; number <= 501; number += 1) {
    const text = String(number).padStart(32, '0');
    const ids = { id: text, selector: text, currentHash: text.repeat(2) };
    await insertSession(db, { ...ids, ...times, userId, client });
  }

  const ended = await sessions.endAll(userId, 'admin');

  assert.equal(ended.length, 501);
  assert.deepEqual(await sessions.list(userId), []);
});

test('at most 16 transactions end sessions at the same time, and at most 1000 wait', async (t) => {
  const db = await databaseFor(t);
  let running = 0;
  let release = () => {};
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  const { sessions } = await sessionsFor(t, {
    db: {
      dialect: db.dialect,
      query: (statement) => db.query(statement),
      execute: (statement) => db.execute(statement),
      transaction: async (work) => {
        running += 1;
        await released;
        return db.transaction(work);
      },
      close: () => db.close(),
    },
  });

  const endings = Array.from({ length: 1016 }, (_, index) => sessions.end(`${index}`, 'logout'));
  const outcome = sessions.end('one too many', 'logout').then(
    () => 'ended',
    ({ name }) => name,
  );
  await new Promise((resolve) => setImmediate(resolve));
  const runningAtOnce = running;
  release();
  await Promise.all(endings);

  assert.equal(runningAtOnce, 16);
  assert.equal(await outcome, 'service_unavailable');
});

test('sessions can be ended before the event log has been created', async (t) => {
  const { db, sessions, users } = await sessionsFor(t);
  const { sessionId } = await openSession(sessions, await newUser(users));

  assert.equal(await sessions.end(sessionId, 'logout'), true);

  assert.deepEqual(await db.query(sql`select seq from events`), []);
});

test('endAll ends all sessions of the user except the one in the option `except`', async (t) => {
  const { sessions, users, endedSessions } = await sessionsFor(t);
  const account = await newUser(users);
  const [one, two] = [await openSession(sessions, account), await openSession(sessions, account)];
  const stranger = await openSession(sessions, await newUser(users));

  const ids = await sessions.endAll(account.id, 'logout', { except: one.sessionId });

  assert.deepEqual(ids, [two.sessionId]);
  assert.deepEqual(endedSessions, [{ sessionIds: ids, reason: 'logout' }]);
  assert.ok(await sessions.findLive(one.sessionId));
  assert.ok(await sessions.findLive(stranger.sessionId));
  assert.deepEqual(await sessions.endAll('999', 'admin'), []);
  assert.equal(endedSessions.length, 1);
});

test('endAll rolls back and ends no session when its option `first`, which runs in the same transaction, throws', async (t) => {
  const { sessions, users, endedSessions } = await sessionsFor(t);
  const account = await newUser(users);
  const { sessionId } = await openSession(sessions, account);

  const ending = sessions.endAll(account.id, 'disabled', {
    first: async (tx) => {
      await users.disable(account.id, tx);
      throw new Error('the disk is full');
    },
  });

  await assert.rejects(ending, /the disk is full/);
  assert.ok(await sessions.findLive(sessionId));
  assert.deepEqual(endedSessions, []);
});

test('a session of a disabled user is not live', async (t) => {
  const { sessions, users } = await sessionsFor(t);
  const account = await newUser(users);
  const { sessionId, refreshToken } = await openSession(sessions, account);

  await users.disable(account.id);

  assert.equal(await sessions.findLive(sessionId), undefined);
  await assert.rejects(sessions.rotate(refreshToken, client, sign), { name: 'invalid_token' });
});

test('hasSessionFrom is true only for the address of the last login or refresh of a live session', async (t) => {
  const { sessions, users } = await sessionsFor(t);
  const account = await newUser(users);
  const { sessionId, refreshToken } = await openSession(sessions, account);
  assert.equal(await sessions.hasSessionFrom(account.id, client.ipKey), true);
  assert.equal(await sessions.hasSessionFrom('0', client.ipKey), false);

  await sessions.rotate(refreshToken, { ...client, ipKey: '198.51.100.7' }, sign);

  assert.equal(await sessions.hasSessionFrom(account.id, client.ipKey), false);
  assert.equal(await sessions.hasSessionFrom(account.id, '198.51.100.7'), true);
  await sessions.end(sessionId, 'logout');
  assert.equal(await sessions.hasSessionFrom(account.id, '198.51.100.7'), false);
});

test('the list contains live sessions, most recently refreshed first', async (t) => {
  const { sessions, users, time } = await sessionsFor(t);
  const account = await newUser(users);
  const one = await openSession(sessions, account);
  time.now += 1;
  const two = await openSession(sessions, account, { ...client, userAgent: undefined });
  const ended = await openSession(sessions, account);
  await sessions.end(ended.sessionId, 'logout');

  const list = await sessions.list(account.id);

  assert.deepEqual(list, [
    {
      id: two.sessionId,
      createdAt: time.now,
      refreshedAt: time.now,
      expiresAt: time.now + idleMs,
      ipKey: client.ipKey,
      userAgent: undefined,
    },
    {
      id: one.sessionId,
      createdAt: time.now - 1,
      refreshedAt: time.now - 1,
      expiresAt: time.now - 1 + idleMs,
      ipKey: client.ipKey,
      userAgent: client.userAgent,
    },
  ]);
});

test('clean-up deletes only sessions that ended more than a day ago', async (t) => {
  const { sessions, users, time } = await sessionsFor(t);
  const account = await newUser(users);
  const expired = await openSession(sessions, account);
  time.now += idleMs;
  const revoked = await openSession(sessions, account);
  await sessions.end(revoked.sessionId, 'logout');
  assert.equal(await sessions.deleteEnded(), 0);

  time.now += day;
  assert.equal(await sessions.deleteEnded(), 0);
  await assert.rejects(sessions.rotate(expired.refreshToken, client, sign), {
    name: 'expired_token',
  });
  time.now += 1;
  const kept = await openSession(sessions, account);
  assert.equal(await sessions.deleteEnded(), 2);

  await assert.rejects(sessions.rotate(expired.refreshToken, client, sign), {
    name: 'invalid_token',
  });
  assert.ok(await sessions.findLive(kept.sessionId));
});

test('clean-up deletes the encrypted successor of a refresh token when the grace has ended', async (t) => {
  const { sessions, users, time, db } = await sessionsFor(t);
  const { refreshToken } = await openSession(sessions, await newUser(users));
  const readSealedSuccessor = async () => {
    interface Row {
      readonly successor_enc: string | null;
    }
    return (await db.query<Row>(sql`select successor_enc from sessions`))[0]?.successor_enc;
  };
  const rotated = await sessions.rotate(refreshToken, client, sign);

  time.now += graceMs;
  await sessions.deleteEnded();
  assert.equal((await readSealedSuccessor())?.length, 188);
  time.now += 1;
  await sessions.deleteEnded();
  assert.equal(await readSealedSuccessor(), null);

  assert.ok(await sessions.rotate(rotated.refreshToken, client, sign));
});

test('clean-up keeps the encrypted successor of a refresh token during the grace', async (t) => {
  const { sessions, users, time } = await sessionsFor(t);
  const { refreshToken } = await openSession(sessions, await newUser(users));
  const second = await sessions.rotate(refreshToken, client, sign);
  time.now += graceMs;
  const third = await sessions.rotate(second.refreshToken, client, sign);
  time.now += 1;

  await sessions.deleteEnded();

  const again = await sessions.rotate(second.refreshToken, client, sign);
  assert.equal(again.refreshToken, third.refreshToken);
});
