import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { databaseFor } from '../../../test/support/databases/embedded.js';
import { collectingLog } from '../../../test/support/recording/collecting-log.js';
import { newUser, openSession, sessionsFor } from '../../../test/support/servers/auth.js';
import { type Database, sql, tuples } from '../../db/database.js';
import { silentLogger } from '../../logging/logger.js';
import { type Listener, RevocationFeed } from './revocation-feed.js';

/**
 * Starts a feed that polls as often as it can, and records its calls. The sessions stand for those
 * of another process: only the database connects them with the feed.
 */
async function feedFor(t: TestContext, db?: Database) {
  const below = await sessionsFor(t, db === undefined ? {} : { db });
  const told: string[] = [];
  const lines: Record<string, unknown>[] = [];
  const listening: Listener[] = [];
  let looks = 0;
  let notice = () => {};
  const feed = RevocationFeed.start({
    sessions: below.sessions,
    users: below.users,
    listeners: () => {
      looks += 1;
      notice();
      return [...listening];
    },
    onEnded: (sessionIds) => {
      told.push(...sessionIds);
      for (const id of sessionIds) {
        listening.splice(
          listening.findIndex(({ sessionId }) => sessionId === id),
          1,
        );
      }
      notice();
    },
    log: collectingLog(lines),
    wallClock: below.wallClock,
    intervalMs: 1,
  });
  t.after(() => feed.close());
  const until = async (isTrue: () => boolean) => {
    while (!isTrue()) {
      await new Promise<void>((resolve) => {
        notice = resolve;
      });
    }
  };
  /** Waits until two more polls have started, so that one has ended. */
  const aLook = () => {
    const wanted = looks + 2;
    return until(() => looks >= wanted);
  };
  const listen = async () => {
    const user = await newUser(below.users);
    const { sessionId } = await openSession(below.sessions, user);
    const listener = { userId: user.id, sessionId };
    listening.push(listener);
    return listener;
  };
  return { ...below, feed, told, lines, listening, listen, until, aLook, looks: () => looks };
}

test('a session that another process ended is reported, and no other', async (t) => {
  const { sessions, users, listen, told, until, aLook } = await feedFor(t);
  const [one, two] = [await listen(), await listen()];
  const { sessionId: nobodys } = await openSession(sessions, await newUser(users));

  await sessions.end(nobodys, 'logout');
  await sessions.end(one.sessionId, 'logout');
  await until(() => told.length > 0);
  await aLook();

  assert.deepEqual(told, [one.sessionId]);
  await sessions.endAll(two.userId, 'password');
  await until(() => told.length > 1);
  assert.deepEqual(told, [one.sessionId, two.sessionId]);
});

test('sessions of a deleted user are reported, although their rows are deleted', async (t) => {
  const { users, listen, told, until, aLook } = await feedFor(t);
  const [one] = [await listen(), await listen()];

  await users.delete(one.userId);
  await until(() => told.length > 0);
  await aLook();

  assert.deepEqual(told, [one.sessionId]);
});

for (const [whose, behindMs] of [
  ['9 s behind', 9000],
  ['9 s ahead', -9000],
] as const) {
  test(`sessions ended by a process whose clock is ${whose} are reported`, async (t) => {
    const { sessions, listen, told, until, aLook, time } = await feedFor(t);
    const one = await listen();
    time.now += 60_000;
    await aLook();
    time.now -= behindMs;
    await sessions.end(one.sessionId, 'logout');
    time.now += behindMs;

    await until(() => told.length > 0);

    assert.deepEqual(told, [one.sessionId]);
  });
}

test('all of thousands of sessions that ended in the same millisecond are reported', async (t) => {
  const { db, listen, told, until, time } = await feedFor(t);
  const one = await listen();
  const others = Array.from({ length: 2500 }, (_, index) => {
    const id = String(index).padStart(32, '0'); // Sorts before `one`.
    return [id, Number(one.userId), id, 'hash', 0, 0, 0, 0, 0, 0];
  });
  await db.transaction(async (tx) => {
    for (let start = 0; start < others.length; start += 500) {
      await tx.execute(
        sql`insert into sessions (id, user_id, selector, cur_hash, prev_valid_until, generation,
            created_at, refreshed_at, idle_expires_at, absolute_expires_at)
          values ${tuples(others.slice(start, start + 500))}`,
      );
    }
    await tx.execute(sql`update sessions set revoked_at = ${time.now}, revoke_reason = ${'admin'}`);
  });

  await until(() => told.length > 0);

  assert.deepEqual(told, [one.sessionId]);
});

test('during a database outage the feed keeps polling, logs once, and later misses nothing', async (t) => {
  const plain = await databaseFor(t);
  let isAway = false;
  const db: Database = {
    dialect: plain.dialect,
    query: (statement) =>
      isAway ? Promise.reject(new Error('Cannot query: away')) : plain.query(statement),
    execute: (statement) => plain.execute(statement),
    transaction: (work) => plain.transaction(work),
    close: () => plain.close(),
  };
  const { sessions, listen, told, lines, until, aLook, time } = await feedFor(t, db);
  const one = await listen();
  await aLook();

  isAway = true;
  await aLook();
  await sessions.end(one.sessionId, 'logout');
  time.now += 3_600_000;
  await aLook();
  assert.deepEqual(told, []);
  isAway = false;
  await until(() => told.length > 0);
  await aLook();

  assert.deepEqual(told, [one.sessionId]);
  const phrases = lines.map(({ level, phrase }) => [level, phrase]);
  assert.deepEqual(phrases, [
    ['warn', 'revocations cannot be heard of, will try again'],
    ['info', 'revocations are heard of again'],
  ]);
});

test('a feed without listeners does not query the database', async (t) => {
  const plain = await databaseFor(t);
  let asked = 0;
  const db: Database = {
    dialect: plain.dialect,
    query: (statement) => {
      asked += 1;
      return plain.query(statement);
    },
    execute: (statement) => plain.execute(statement),
    transaction: (work) => plain.transaction(work),
    close: () => plain.close(),
  };
  const { listen, aLook } = await feedFor(t, db);

  await aLook();
  const before = asked;
  await listen();
  const listening = asked;
  await aLook();

  assert.equal(before, 0);
  assert.ok(asked > listening);
});

test('by default a feed polls once a second', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let looks = 0;
  const never = () => Promise.reject(new Error('nobody listens'));
  const feed = RevocationFeed.start({
    sessions: { endedSince: never },
    users: { missing: never },
    listeners: () => {
      looks += 1;
      return [];
    },
    onEnded() {},
    log: silentLogger,
  });

  for (const second of [1, 2, 3]) {
    t.mock.timers.tick(999);
    assert.equal(looks, second - 1);
    t.mock.timers.tick(1);
    assert.equal(looks, second);
    await new Promise(setImmediate); // The poll ends, and the next one is scheduled.
  }
  await feed.close();
});

test('a closed feed does not query the database, and close is idempotent', async (t) => {
  const { feed, listen, aLook, looks } = await feedFor(t);
  await listen();
  await aLook();

  await Promise.all([feed.close(), feed.close()]);
  const after = looks();
  await new Promise((resolve) => setTimeout(resolve, 20)); // Time for twenty polls.

  assert.equal(looks(), after);
});

test('closing a feed waits for the poll under way', async (t) => {
  const keepAlive = setInterval(() => {}, 1000); // The feed's own timer keeps no process alive.
  t.after(() => clearInterval(keepAlive));
  let noteAsked = () => {};
  const asked = new Promise<void>((resolve) => {
    noteAsked = resolve;
  });
  let finish = () => {};
  const feed = RevocationFeed.start({
    sessions: {
      endedSince: () => {
        noteAsked();
        return new Promise((resolve) => {
          finish = () => resolve([]);
        });
      },
    },
    users: { missing: async () => [] },
    listeners: () => [{ userId: '1', sessionId: 's' }],
    onEnded() {},
    log: silentLogger,
    intervalMs: 1,
  });
  await asked;

  let isClosed = false;
  const closing = feed.close().then(() => {
    isClosed = true;
  });
  await new Promise(setImmediate);
  assert.equal(isClosed, false);
  finish();

  await closing;
});
