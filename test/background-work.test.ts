import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { loadConfig } from '../src/config/config.js';
import { type Database, sql } from '../src/db/database.js';
import { unavailable } from '../src/db/failures.js';
import { HealthCheckedDatabase } from '../src/db/health-checked-database.js';
import { EventLog } from '../src/event-log/event-log.js';
import { controlEntryAppender, probeEventLog } from '../src/event-log/open.js';
import { SqlLogStore } from '../src/event-log/sql/sql-log-store.js';
import { silentLogger } from '../src/logging/logger.js';
import { WarningAggregator } from '../src/logging/warning-aggregator.js';
import { Metrics } from '../src/metrics.js';
import { openStreaming, type StreamingOptions } from '../src/stream/open.js';
import { Revocations } from '../src/stream/topics/revocations.js';
import { serverDialects, testOnDialects } from './support/databases/dialects.js';
import { databaseFor } from './support/databases/test-database.js';
import { newUser, openSession, sessionsFor } from './support/servers/auth.js';
import { unlimitedRetention } from './support/unlimited-retention.js';

const test = await testOnDialects('background work');

const isRefused = { name: 'service_unavailable' };

/**
 * Opens components on a database that refuses all but background work while `state.isRefusing`, as a
 * database does while too many statements are waiting.
 */
async function openRefusing(t: TestContext) {
  const real = await databaseFor(t);
  const state = { isRefusing: false };
  const admit = async () => {
    if (state.isRefusing) throw unavailable('overloaded');
  };
  const db: Database = {
    dialect: real.dialect,
    background: real,
    query: (statement) => admit().then(() => real.query(statement)),
    execute: (statement) => admit().then(() => real.execute(statement)),
    transaction: (work) => admit().then(() => real.transaction(work)),
    close: () => real.close(),
  };
  const auth = await sessionsFor(t, { db });
  const { wallClock } = auth;
  const store = await SqlLogStore.open(db, { wallClock, newEpoch: 'e' });
  const limits = { ...unlimitedRetention, ageMaxMs: 86_400_000 };
  const eventLog = await EventLog.open({ store, log: silentLogger, wallClock, limits });
  return { ...auth, db, state, eventLog };
}

test('sessions can be ended while requests are refused, and the event log delivers their control entries', async (t) => {
  const { state, sessions, users, eventLog } = await openRefusing(t);
  const account = await newUser(users);
  const { sessionId } = await openSession(sessions, account);
  await openSession(sessions, account);

  state.isRefusing = true;
  await assert.rejects(users.find(account.id), isRefused);
  assert.equal(await sessions.end(sessionId, 'logout'), true);
  assert.equal((await sessions.endAll(account.id, 'logout')).length, 1);
  await eventLog.catchUp();

  assert.equal(eventLog.head, 2);
});

test('expired rows are deleted while requests are refused', async (t) => {
  const { db, state, sessions, users, eventLog, time, wallClock } = await openRefusing(t);
  await openSession(sessions, await newUser(users));
  const event = { audiences: ['all'], data: '1', type: undefined, expiresAt: undefined };
  const idempotency = { key: 'once', bodyHash: 'f'.repeat(64) };
  await eventLog.append({ events: [event], idempotency });
  const appendControlEntries = controlEntryAppender(db, wallClock);
  const revocations = new Revocations({ db, wallClock, appendControlEntries });
  await revocations.revoke({ topic: 'a', userIds: ['1'] });
  time.now += 40 * 86_400_000;

  state.isRefusing = true;

  assert.equal(await sessions.deleteEnded(), 1);
  assert.equal(await eventLog.trim(), 3); // The event, its recipient, and the entry of the revocation.
  assert.equal(await eventLog.sweepIdempotencyKeys(), 1);
  assert.equal(await revocations.sweep(), 1);
});

test(
  'readiness is checked while requests are refused',
  async (t) => {
    const { db, state, wallClock } = await openRefusing(t);
    const checked = new HealthCheckedDatabase(db, {
      probe: (given) => probeEventLog(given, 100, wallClock()),
      log: silentLogger,
    });
    state.isRefusing = true;

    await checked.check();
    await assert.rejects(checked.execute(sql`delete from processes`), isRefused);
    await checked.check(); // Writes, because a write was refused.
  },
  serverDialects,
);

test(
  'a process sends its heartbeats and deletes stream tokens while requests are refused',
  async (t) => {
    const { db, state, eventLog, time, wallClock } = await openRefusing(t);
    const options: Omit<StreamingOptions, 'access'> = {
      ...{ db, eventLog, wallClock, monotonicClock: wallClock, random: Math.random },
      config: loadConfig({}).stream,
      appendControlEntries: controlEntryAppender(db, wallClock),
      metrics: new Metrics(),
      log: silentLogger,
      warnings: new WarningAggregator({ log: silentLogger, monotonicClock: wallClock }),
    };
    await db.execute(
      sql`insert into stream_tokens (token_hash, user_id, session_id, created_at, expires_at)
        values (${'f'.repeat(64)}, ${await insertUser(db)}, 's', 0, ${time.now})`,
    );
    time.now += 86_400_000;

    state.isRefusing = true;
    const streaming = await openStreaming({ ...options, access: {} as StreamingOptions['access'] });
    t.after(async () => {
      await eventLog.close();
      await streaming.close();
    });

    assert.equal(await streaming.cleanUpTasks['streamTokens']?.(), 1);
  },
  serverDialects,
);

async function insertUser(db: Database): Promise<number> {
  await db.execute(
    sql`insert into users (username, username_key, password_hash, first_name, last_name,
        password_changed_at, created_at, updated_at)
      values ('ada', 'ada', 'none', 'A', 'B', 0, 0, 0)`,
  );
  const [row] = await db.query<{ id: number }>(sql`select id from users`);
  return row?.id ?? 0;
}
