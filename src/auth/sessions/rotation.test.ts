import assert from 'node:assert/strict';
import fc from 'fast-check';
import { testOnDialects } from '../../../test/support/databases/dialects.js';
import { databaseFor } from '../../../test/support/databases/test-database.js';
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
import { type Database, sql } from '../../db/database.js';
import type { Sessions } from './sessions.js';

const test = await testOnDialects('rotation of refresh tokens');

type EndAction = (target: { sessions: Sessions; id: string; token: string }) => Promise<unknown>;

const refresh = (sessions: Sessions, token: string) => sessions.rotate(token, client, sign);

test('a refresh token is exchanged for its successor', async (t) => {
  const { sessions, users } = await sessionsFor(t);
  const account = await newUser(users);
  const first = await openSession(sessions, account);

  const second = await refresh(sessions, first.refreshToken);
  const third = await refresh(sessions, second.refreshToken);

  const seen = new Set([first, second, third].map((grant) => grant.refreshToken));
  assert.equal(seen.size, 3);
  assert.equal(third.sessionId, first.sessionId);
  assert.equal(third.accessToken, `access ${account.id} ${first.sessionId}`);
});

test('a client that did not receive the response gets the same successor within the grace', async (t) => {
  const { sessions, users, time, lines } = await sessionsFor(t);
  const first = await openSession(sessions, await newUser(users));
  const unreceived = await refresh(sessions, first.refreshToken);

  time.now += graceMs - 1;
  await refresh(sessions, first.refreshToken);
  time.now += 1;
  const again = await refresh(sessions, first.refreshToken);

  assert.equal(again.refreshToken, unreceived.refreshToken);
  assert.equal(again.refreshTokenExpiresInMs, idleMs - graceMs, 'the row is untouched');
  const replays = lines.filter(({ replayed }) => replayed === true);
  assert.equal(replays.length, 2);
  await refresh(sessions, again.refreshToken);
});

test('a spent token presented after the grace ends only its session', async (t) => {
  const { sessions, users, time, endedSessions, lines } = await sessionsFor(t);
  const account = await newUser(users);
  const other = await openSession(sessions, account);
  const first = await openSession(sessions, account);
  const second = await refresh(sessions, first.refreshToken);

  time.now += graceMs + 1;
  await assert.rejects(refresh(sessions, first.refreshToken), { name: 'invalid_token' });

  await assert.rejects(refresh(sessions, second.refreshToken), { name: 'invalid_token' });
  await assert.rejects(refresh(sessions, first.refreshToken), { name: 'invalid_token' });
  assert.deepEqual(endedSessions, [{ sessionIds: [first.sessionId], reason: 'reuse' }]);
  assert.equal(lines.filter(({ event }) => event === 'authn_token_reuse').length, 1);
  assert.ok(await sessions.findLive(other.sessionId));
  await refresh(sessions, other.refreshToken);
});

for (const [how, end] of [
  ['a logout', ({ sessions, id }) => sessions.end(id, 'logout')],
  ['reuse', ({ sessions, token }) => refresh(sessions, token).catch(() => {})],
] as const satisfies readonly (readonly [string, EndAction])[]) {
  test(`after ${how} no sealed successor is left in the database`, async (t) => {
    const { db, sessions, users, time } = await sessionsFor(t);
    const { refreshToken: token, sessionId: id } = await openSession(
      sessions,
      await newUser(users),
    );
    await refresh(sessions, token);
    const sealed = () =>
      db.query<{ sealed: string | null }>(sql`select successor_enc as sealed from sessions`);
    assert.equal((await sealed())[0]?.sealed?.length, 188);

    time.now += graceMs + 1;
    await end({ sessions, id, token });

    assert.deepEqual(await sealed(), [{ sealed: null }]);
  });
}

test('with a grace of 0 a token is valid once, even in the same millisecond', async (t) => {
  const { sessions, users, endedSessions } = await sessionsFor(t, { graceMs: 0 });
  const first = await openSession(sessions, await newUser(users));
  await refresh(sessions, first.refreshToken);

  await assert.rejects(refresh(sessions, first.refreshToken), { name: 'invalid_token' });

  assert.equal(endedSessions[0]?.reason, 'reuse');
});

test('unknown, revoked and reused tokens get the same failure', async (t) => {
  const { sessions, users, time } = await sessionsFor(t);
  const account = await newUser(users);
  const getRefusal = async (token: string) => {
    const refusal: unknown = await refresh(sessions, token).catch((cause: unknown) => cause);
    assert.ok(refusal instanceof Error);
    return { ...refusal, message: refusal.message };
  };
  const otherDatabase = await sessionsFor(t);
  const unknown = await openSession(otherDatabase.sessions, await newUser(otherDatabase.users));
  const revoked = await openSession(sessions, account);
  await sessions.end(revoked.sessionId, 'logout');
  const reused = await openSession(sessions, account);
  await refresh(sessions, reused.refreshToken);
  time.now += graceMs + 1;

  const refusals = [
    await getRefusal(unknown.refreshToken),
    await getRefusal(revoked.refreshToken),
    await getRefusal(reused.refreshToken),
    await getRefusal('not a token'),
  ];

  for (const refusal of refusals) assert.deepEqual(refusal, refusals[0]);
});

test('a refresh token is not spent when signing the access token fails', async (t) => {
  const { sessions, users, time } = await sessionsFor(t);
  const first = await openSession(sessions, await newUser(users));
  const failing = async () => {
    throw new Error('no thread is free');
  };
  await assert.rejects(sessions.rotate(first.refreshToken, client, failing));

  time.now += graceMs + 1;

  assert.ok(await refresh(sessions, first.refreshToken));
});

const endings = [
  ['a logout', 'invalid_token'],
  ['an expiry', 'expired_token'],
] as const;

for (const [what, name] of endings) {
  test(`a refresh is rejected after ${what} during the signing of its access token`, async (t) => {
    const { sessions, users, time } = await sessionsFor(t);
    const { refreshToken } = await openSession(sessions, await newUser(users));

    const refreshing = sessions.rotate(refreshToken, client, async (session) => {
      if (name === 'invalid_token') await sessions.end(session.id, 'logout');
      else time.now += idleMs;
      return 'access';
    });

    await assert.rejects(refreshing, { name });
  });
}

test('a token with a flipped bit is treated as forged and ends no session', async (t) => {
  const { sessions, users, endedSessions } = await sessionsFor(t);
  const { refreshToken } = await openSession(sessions, await newUser(users));
  for (let byte = 16; byte < 128; byte += 1) {
    const bytes = Buffer.from(refreshToken, 'base64');
    bytes[byte] = (bytes[byte] ?? 0) ^ (1 << (byte & 7));

    const forged = refresh(sessions, bytes.toString('base64'));

    await assert.rejects(forged, { name: 'invalid_token' });
  }
  assert.deepEqual(endedSessions, []);
  assert.ok(await refresh(sessions, refreshToken));
});

test('a change of secrets ends no session, and reuse is detected while the previous secret is listed', async (t) => {
  const { users, time, reopen, endedSessions } = await sessionsFor(t);
  const next = Buffer.alloc(32, 'another secret');
  const before = reopen({ secrets: [secret] });
  const first = await openSession(before, await newUser(users));
  const after = reopen({ secrets: [next] });

  const second = await refresh(after, first.refreshToken);
  time.now += graceMs + 1;
  await assert.rejects(refresh(after, first.refreshToken), { name: 'invalid_token' });
  assert.equal(endedSessions.length, 0, 'the MAC is not verifiable');
  const third = await refresh(after, second.refreshToken);
  const both = reopen({ secrets: [next, secret] });
  time.now += graceMs + 1;
  await assert.rejects(refresh(both, first.refreshToken), { name: 'invalid_token' });

  assert.equal(endedSessions[0]?.reason, 'reuse');
  await assert.rejects(refresh(both, third.refreshToken), { name: 'invalid_token' });
});

/** Wraps a database so that every round trip waits for the scheduler. */
function withScheduler(db: Database, scheduler: fc.Scheduler): Database {
  // The scheduler stops at a task that rejects, so errors pass through it as values.
  const roundTrip = scheduler.scheduleFunction(async (run: () => Promise<unknown>) => {
    try {
      return { value: await run() };
    } catch (error) {
      return { error };
    }
  });
  const later = async <Result>(run: () => Promise<Result>): Promise<Result> => {
    const outcome = await roundTrip(run);
    if ('error' in outcome) throw outcome.error;
    return outcome.value as Result; // The result of `run`.
  };
  return {
    dialect: db.dialect,
    query: (statement) => later(() => db.query(statement)),
    execute: (statement) => later(() => db.execute(statement)),
    transaction: (work) => db.transaction(work),
    close: () => db.close(),
  };
}

/** Fewer runs on a database server, because each run takes many commits. */
const runOptions = ({ dialect }: Database) => ({ numRuns: dialect === 'sqlite' ? 100 : 15 });

test('in any interleaving of requests with one token, one request rotates it and all get the same successor', async (t) => {
  const db = await databaseFor(t);
  const plain = await sessionsFor(t, { db });
  await fc.assert(
    fc.asyncProperty(
      fc.scheduler(),
      fc.integer({ min: 1, max: 6 }),
      fc.integer({ min: 0, max: graceMs }),
      async (scheduler, callers, laterMs) => {
        const { refreshToken, sessionId } = await openSession(
          plain.sessions,
          await newUser(plain.users),
        );
        const { sessions, lines, time } = await sessionsFor(t, {
          db: withScheduler(db, scheduler),
        });

        const refreshing = Array.from({ length: callers }, () => refresh(sessions, refreshToken));
        const grants = await scheduler.waitFor(Promise.all(refreshing));
        time.now += laterMs;
        const late = await scheduler.waitFor(refresh(sessions, refreshToken));

        const successors = new Set([...grants, late].map((grant) => grant.refreshToken));
        assert.equal(successors.size, 1);
        const renewals = lines.filter(({ event }) => event === 'session_renewed');
        assert.equal(renewals.filter(({ replayed }) => replayed !== true).length, 1);
        assert.equal(renewals.length, callers + 1);
        assert.ok(await plain.sessions.findLive(sessionId));
      },
    ),
    runOptions(db),
  );
});

test('in any interleaving of a spent and the current token, the session ends, at the latest after the newest grace period', async (t) => {
  const db = await databaseFor(t);
  const plain = await sessionsFor(t, { db });
  await fc.assert(
    fc.asyncProperty(
      fc.scheduler(),
      fc.array(fc.boolean(), { minLength: 0, maxLength: 5 }),
      async (scheduler, others) => {
        const first = await openSession(plain.sessions, await newUser(plain.users));
        const second = await refresh(plain.sessions, first.refreshToken);
        const { sessions, time, endedSessions } = await sessionsFor(t, {
          db: withScheduler(db, scheduler),
        });
        time.now += graceMs + 1;

        const tokens = others.map((isOld) => (isOld ? first.refreshToken : second.refreshToken));
        const all = [first.refreshToken, ...tokens].map((token) => refresh(sessions, token));
        const results = await scheduler.waitFor(Promise.allSettled(all));

        assert.equal(results[0]?.status, 'rejected');
        time.now += graceMs + 1;
        const late = await scheduler.waitFor(refresh(sessions, first.refreshToken).catch(() => {}));
        assert.equal(late, undefined);
        const grants = results.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
        const family = [first, second, ...grants].map((grant) => grant.refreshToken);
        for (const token of new Set(family)) {
          await assert.rejects(refresh(plain.sessions, token), { name: 'invalid_token' });
        }
        assert.deepEqual(endedSessions, [{ sessionIds: [first.sessionId], reason: 'reuse' }]);
      },
    ),
    runOptions(db),
  );
});

test('in any interleaving of a refresh and a logout, no token is valid after the logout', async (t) => {
  const db = await databaseFor(t);
  const plain = await sessionsFor(t, { db });
  await fc.assert(
    fc.asyncProperty(fc.scheduler(), fc.integer({ min: 1, max: 4 }), async (scheduler, callers) => {
      const { refreshToken, sessionId } = await openSession(
        plain.sessions,
        await newUser(plain.users),
      );
      const { sessions } = await sessionsFor(t, { db: withScheduler(db, scheduler) });

      const logout = sessions.end(sessionId, 'logout');
      const refreshing = Array.from({ length: callers }, () => refresh(sessions, refreshToken));
      const results = await scheduler.waitFor(Promise.allSettled(refreshing));
      assert.equal(await scheduler.waitFor(logout), true);

      const grants = results.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
      for (const token of [refreshToken, ...grants.map((grant) => grant.refreshToken)]) {
        await assert.rejects(refresh(plain.sessions, token), { name: 'invalid_token' });
      }
      assert.equal(await plain.sessions.findLive(sessionId), undefined);
    }),
    runOptions(db),
  );
});

/** Simulates a crash after some round trips; the database may have executed the last one. */
function crashAfter(db: Database, trips: number, isLastDone: boolean): Database {
  let left = trips;
  const trip = async <Result>(run: () => Promise<Result>): Promise<Result> => {
    left -= 1;
    if (left === -1 && isLastDone) await run();
    if (left < 0) throw new Error('the process crashed');
    return run();
  };
  return {
    dialect: db.dialect,
    query: (statement) => trip(() => db.query(statement)),
    execute: (statement) => trip(() => db.execute(statement)),
    transaction: (work) => db.transaction(work),
    close: () => db.close(),
  };
}

const actionsArbitrary = fc.array(
  fc.record({
    action: fc.constantFrom('refresh', 'refresh', 'refresh', 'logout', 'reuse'),
    doesCrash: fc.boolean(),
  }),
  { minLength: 1, maxLength: 5 },
);

test('in any interleaving of refreshes, a logout, reuse and a crash, the database agrees with every response', async (t) => {
  const db = await databaseFor(t);
  const plain = await sessionsFor(t, { db });
  await fc.assert(
    fc.asyncProperty(
      fc.scheduler(),
      actionsArbitrary,
      fc.nat({ max: 8 }),
      fc.boolean(),
      async (scheduler, all, trips, isLastDone) => {
        const first = await openSession(plain.sessions, await newUser(plain.users));
        const second = await refresh(plain.sessions, first.refreshToken);
        const healthy = await sessionsFor(t, { db: withScheduler(db, scheduler) });
        const crashing = crashAfter(db, trips, isLastDone);
        const crashed = await sessionsFor(t, { db: withScheduler(crashing, scheduler) });
        plain.time.now += graceMs + 1;
        for (const { time } of [healthy, crashed]) time.now = plain.time.now;

        const act = async ({ action, doesCrash }: { action: string; doesCrash: boolean }) => {
          const { sessions } = doesCrash ? crashed : healthy;
          if (action === 'logout') return void (await sessions.end(first.sessionId, 'logout'));
          return refresh(sessions, (action === 'reuse' ? first : second).refreshToken);
        };
        const results = await scheduler.waitFor(Promise.allSettled(all.map(act)));

        const grants = results.flatMap(
          (one) => (one.status === 'fulfilled' ? one.value : []) ?? [],
        );
        const isAnswered = (action: string) =>
          results.some((one, index) => all[index]?.action === action && !isLost(one));
        const successors = new Set(grants.map((grant) => grant.refreshToken));
        assert.ok(successors.size <= 1);
        if (isAnswered('reuse')) {
          // A refresh just before may have protected the session: for its grace period or, if its process crashed
          // before the grace period started, for a minute.
          plain.time.now += 60_000 + 1;
          await assert.rejects(refresh(plain.sessions, first.refreshToken));
        }
        const retried = await refresh(plain.sessions, second.refreshToken).catch(() => undefined);
        if (isAnswered('logout') || isAnswered('reuse')) {
          assert.equal(retried, undefined);
          assert.equal(await plain.sessions.findLive(first.sessionId), undefined);
          for (const token of successors) await assert.rejects(refresh(plain.sessions, token));
        } else if (all.every(({ action }) => action === 'refresh')) {
          // Whichever response was lost, a retry gets the same successor.
          assert.ok(retried);
          for (const token of successors) assert.equal(retried.refreshToken, token);
        }
      },
    ),
    runOptions(db),
  );
});

/** Whether the caller got no response because the process crashed. */
function isLost(result: PromiseSettledResult<unknown>): boolean {
  return result.status === 'rejected' && /the process crashed/.test(String(result.reason));
}

test('twenty simultaneous refreshes on one database get one successor', async (t) => {
  const { sessions, users } = await sessionsFor(t);
  const { refreshToken } = await openSession(sessions, await newUser(users));

  const grants = await Promise.all(
    Array.from({ length: 20 }, () => refresh(sessions, refreshToken)),
  );

  assert.equal(new Set(grants.map((grant) => grant.refreshToken)).size, 1);
});
