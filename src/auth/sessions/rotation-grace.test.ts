import assert from 'node:assert/strict';
import { serverDialects, testOnDialects } from '../../../test/support/databases/dialects.js';
import { waitForBlocked, whileLocked } from '../../../test/support/databases/locks.js';
import { databaseFor } from '../../../test/support/databases/test-database.js';
import { withStatementHook } from '../../../test/support/recording/statement-hooks.js';
import {
  client,
  graceMs,
  idleMs,
  newUser,
  openSession,
  secret,
  sessionsFor,
  sign,
} from '../../../test/support/servers/auth.js';
import { until } from '../../../test/support/until.js';
import { type Database, type Sql, sql } from '../../db/database.js';
import { Failure } from '../../errors.js';
import { formatRefreshToken, parseRefreshToken, RefreshTokens } from '../refresh-token.js';
import type { Sessions } from './sessions.js';

const test = await testOnDialects('grace period of refresh tokens');

const beyondGraceMs = 10 * graceMs;

const refresh = (sessions: Sessions, token: string, signal?: AbortSignal) =>
  sessions.rotate(token, client, sign, signal);

/** Refreshes one after the other and returns all refresh tokens, oldest first. */
async function refreshTimes(sessions: Sessions, token: string, count: number): Promise<string[]> {
  const tokens = [token];
  for (let index = 0; index < count; index += 1) {
    tokens.push((await refresh(sessions, tokens.at(-1) ?? '')).refreshToken);
  }
  return tokens;
}

const isSwap = ({ texts }: Sql) => texts[0]?.startsWith('update sessions set prev_hash') ?? false;

/** Wraps a database so that `afterSwap` is called when the UPDATE of a rotation is committed. */
function withSwapHook(db: Database, afterSwap: () => void): Database {
  return {
    dialect: db.dialect,
    query: (statement) => db.query(statement),
    async execute(statement) {
      const count = await db.execute(statement);
      if (isSwap(statement)) afterSwap();
      return count;
    },
    transaction: (work) => db.transaction(work),
    close: () => db.close(),
  };
}

const lockSession = (id: string) => sql`update sessions set ip_key = ip_key where id = ${id}`;

test(
  'two tabs with one refresh token stay logged in when a rotation waits longer than the grace period',
  async (t) => {
    const { db, sessions, users, time, reopen, endedSessions } = await sessionsFor(t);
    const { refreshToken, sessionId } = await openSession(sessions, await newUser(users));
    const otherProcess = reopen();

    await whileLocked(db, lockSession(sessionId), async (release) => {
      const tabs = [refresh(sessions, refreshToken), refresh(otherProcess, refreshToken)];
      await waitForBlocked(db, 'update sessions set prev_hash', 2);
      time.now += beyondGraceMs;
      await release();

      const grants = await Promise.all(tabs);

      assert.equal(new Set(grants.map((grant) => grant.refreshToken)).size, 1);
    });
    time.now += graceMs;
    await refresh(otherProcess, refreshToken);
    assert.equal(endedSessions.length, 0);
    time.now += 1;
    await assert.rejects(refresh(otherProcess, refreshToken), { name: 'invalid_token' });
    assert.equal(endedSessions[0]?.reason, 'reuse');
  },
  serverDialects,
);

test('a client that got 503 for a rotation, although it was committed, gets the successor when it retries', async (t) => {
  const base = await databaseFor(t);
  const db = withSwapHook(base, () => {
    throw new Failure('service_unavailable', 'Cannot access the database: it is slow');
  });
  const { users, sessions } = await sessionsFor(t, { db });
  const { time, sessions: otherProcess, endedSessions } = await sessionsFor(t, { db: base });
  const { refreshToken } = await openSession(sessions, await newUser(users));
  await assert.rejects(refresh(sessions, refreshToken), { name: 'service_unavailable' });

  time.now += beyondGraceMs;
  const retried = await refresh(otherProcess, refreshToken);
  time.now += graceMs;
  const again = await refresh(otherProcess, refreshToken);

  assert.equal(again.refreshToken, retried.refreshToken);
  time.now += 1;
  await assert.rejects(refresh(otherProcess, refreshToken), { name: 'invalid_token' });
  assert.equal(endedSessions[0]?.reason, 'reuse');
});

test('a refresh succeeds although the start of its grace period cannot be stored', async (t) => {
  const base = await databaseFor(t);
  const { users, sessions, time } = await sessionsFor(t, {
    db: withStatementHook(base, ({ texts }) => {
      if (texts[0]?.startsWith('update sessions set prev_valid_until')) {
        throw new Failure('service_unavailable', 'Cannot access the database: it is gone');
      }
    }),
  });
  const { refreshToken } = await openSession(sessions, await newUser(users));
  const rotated = await refresh(sessions, refreshToken);

  time.now += beyondGraceMs;
  const replayed = await refresh(sessions, refreshToken);

  assert.equal(replayed.refreshToken, rotated.refreshToken);
});

test('the grace period starts when a connected client gets the successor', async (t) => {
  const leaving = new AbortController();
  const base = await databaseFor(t);
  const db = withSwapHook(base, () => leaving.abort());
  const { users, sessions, time } = await sessionsFor(t, { db });
  const { refreshToken } = await openSession(sessions, await newUser(users));
  const { refreshToken: unreceived } = await refresh(sessions, refreshToken, leaving.signal);

  time.now += beyondGraceMs;
  await sessions.deleteEnded();
  const retried = await refresh(sessions, refreshToken);
  time.now += graceMs + 1;

  assert.equal(retried.refreshToken, unreceived);
  await assert.rejects(refresh(sessions, refreshToken), { name: 'invalid_token' });
});

test('a slow retry does not prolong a grace period that another retry has started', async (t) => {
  const leaving = new AbortController();
  const base = await databaseFor(t);
  const db = withSwapHook(base, () => leaving.abort());
  const { users, sessions, time } = await sessionsFor(t, { db });
  const { refreshToken } = await openSession(sessions, await newUser(users));
  await refresh(sessions, refreshToken, leaving.signal);
  let continueSigning = () => {};
  const signing = new Promise<void>((resolve) => {
    continueSigning = resolve;
  });
  let isSigning = false;

  const slow = sessions.rotate(refreshToken, client, async (session) => {
    isSigning = true;
    await signing;
    return sign(session);
  });
  await until(() => isSigning);
  await refresh(sessions, refreshToken); // Starts the grace period.
  time.now += graceMs / 2;
  continueSigning();
  await slow;
  time.now += graceMs / 2 + 1;

  await assert.rejects(refresh(sessions, refreshToken), { name: 'invalid_token' });
});

test('a request that waits longer than the grace period is judged by its time of arrival', async (t) => {
  const base = await databaseFor(t);
  const { users, sessions, time, endedSessions } = await sessionsFor(t, { db: base });
  const { refreshToken } = await openSession(sessions, await newUser(users));
  let startLookup = () => {};
  const lookupStarted = new Promise<void>((resolve) => {
    startLookup = resolve;
  });
  const slow = await sessionsFor(t, {
    db: {
      dialect: base.dialect,
      query: async (statement) => {
        await lookupStarted;
        return base.query(statement);
      },
      execute: (statement) => base.execute(statement),
      transaction: (work) => base.transaction(work),
      close: () => base.close(),
    },
  });

  const waiting = refresh(slow.sessions, refreshToken);
  const rotated = await refresh(sessions, refreshToken);
  for (const clock of [time, slow.time]) clock.now += beyondGraceMs;
  startLookup();

  assert.equal((await waiting).refreshToken, rotated.refreshToken);
  assert.deepEqual([...endedSessions, ...slow.endedSessions], []);
});

test('a token two generations old is refused during the newest grace period, and after it also ends the session', async (t) => {
  const { sessions, users, time, endedSessions } = await sessionsFor(t);
  const { refreshToken } = await openSession(sessions, await newUser(users));
  const [first = '', , third = ''] = await refreshTimes(sessions, refreshToken, 2);

  time.now += graceMs;
  await assert.rejects(refresh(sessions, first), { name: 'invalid_token' });
  assert.equal(endedSessions.length, 0);
  const { refreshToken: fourth } = await refresh(sessions, third);
  time.now += graceMs + 1;
  await assert.rejects(refresh(sessions, first), { name: 'invalid_token' });

  assert.equal(endedSessions[0]?.reason, 'reuse');
  await assert.rejects(refresh(sessions, fourth), { name: 'invalid_token' });
});

test('a thief who refreshes all the time is detected when the owner presents a token 9 generations old', async (t) => {
  const { sessions, users, endedSessions } = await sessionsFor(t);
  const { refreshToken } = await openSession(sessions, await newUser(users));
  const [first = '', second = ''] = await refreshTimes(sessions, refreshToken, 9);

  await assert.rejects(refresh(sessions, second), { name: 'invalid_token' });
  assert.equal(endedSessions.length, 0, 'it is 8 generations old');
  await assert.rejects(refresh(sessions, first), { name: 'invalid_token' });

  assert.equal(endedSessions[0]?.reason, 'reuse');
});

test('use of an older token a minute later detects a thief who disconnected before the grace period', async (t) => {
  const leaving = new AbortController();
  const base = await databaseFor(t);
  const db = withSwapHook(base, () => leaving.abort());
  const { users, sessions: thief } = await sessionsFor(t, { db });
  const { sessions, time, endedSessions } = await sessionsFor(t, { db: base });
  const { refreshToken: first } = await openSession(sessions, await newUser(users));
  const { refreshToken: second } = await refresh(sessions, first);
  await refresh(thief, second, leaving.signal);

  time.now += 60_000;
  await assert.rejects(refresh(sessions, first), { name: 'invalid_token' });
  assert.equal(endedSessions.length, 0);
  time.now += 1;
  await assert.rejects(refresh(sessions, first), { name: 'invalid_token' });

  assert.equal(endedSessions[0]?.reason, 'reuse');
});

test('a spent token of Herald 0.1.0, which contains no generation, counts as reuse even during the grace period', async (t) => {
  const { sessions, users, endedSessions } = await sessionsFor(t);
  const { refreshToken } = await openSession(sessions, await newUser(users));
  await refresh(sessions, refreshToken);
  const { selector } = parseRefreshToken(refreshToken);
  const old = new RefreshTokens({ secrets: [secret] }).mint(selector, 0xfedcba98);

  await assert.rejects(refresh(sessions, formatRefreshToken(old)), { name: 'invalid_token' });

  assert.equal(endedSessions[0]?.reason, 'reuse');
});

test('reuse by a client that disconnects during the lookup does not end the session', async (t) => {
  const { sessions, users, time, endedSessions } = await sessionsFor(t);
  const { refreshToken, sessionId } = await openSession(sessions, await newUser(users));
  await refresh(sessions, refreshToken);
  time.now += graceMs + 1;
  const leaving = new AbortController();

  const reusing = refresh(sessions, refreshToken, leaving.signal);
  leaving.abort();

  await assert.rejects(reusing, { name: 'AbortError' });
  assert.equal(endedSessions.length, 0);
  assert.ok(await sessions.findLive(sessionId));
});

test(
  'reuse by a client that disconnects while the session is locked does not end the session',
  async (t) => {
    const { db, sessions, users, time, endedSessions } = await sessionsFor(t);
    const { refreshToken, sessionId } = await openSession(sessions, await newUser(users));
    await refresh(sessions, refreshToken);
    time.now += graceMs + 1;
    const leaving = new AbortController();

    await whileLocked(db, lockSession(sessionId), async (release) => {
      const rejected = assert.rejects(refresh(sessions, refreshToken, leaving.signal), {
        name: 'AbortError',
      });
      await waitForBlocked(db, 'update sessions set revoked_at');
      leaving.abort();
      await release();

      await rejected;
    });

    assert.equal(endedSessions.length, 0);
    assert.ok(await sessions.findLive(sessionId));
  },
  serverDialects,
);

test('the token of a client that disconnects before the rotation is not spent', async (t) => {
  const { db, sessions, users } = await sessionsFor(t);
  const { refreshToken } = await openSession(sessions, await newUser(users));
  const leaving = new AbortController();

  const refreshing = sessions.rotate(
    refreshToken,
    client,
    async () => {
      leaving.abort();
      return 'access';
    },
    leaving.signal,
  );

  await assert.rejects(refreshing, { name: 'AbortError' });
  assert.deepEqual(await db.query(sql`select generation from sessions`), [{ generation: 0 }]);
});

test('a refresh gets 503 when its clock steps back from after the expiry of the session to before it', async (t) => {
  let goBack = () => {};
  const db = withStatementHook(await databaseFor(t), ({ texts }) => {
    if (texts[0]?.startsWith('select')) goBack();
  });
  const { sessions, users, time } = await sessionsFor(t, { db });
  const { refreshToken } = await openSession(sessions, await newUser(users));
  const openedAt = time.now;
  goBack = () => {
    time.now = openedAt;
  };

  const refreshing = sessions.rotate(refreshToken, client, async () => {
    time.now = openedAt + idleMs;
    return 'access';
  });

  await assert.rejects(refreshing, {
    name: 'service_unavailable',
    headers: { 'retry-after': '1' },
  });
  goBack();
  assert.ok(await refresh(sessions, refreshToken));
});
