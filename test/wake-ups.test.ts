import assert from 'node:assert/strict';
import { after, describe, type TestContext, test } from 'node:test';
import { loadConfig } from '../src/config/config.js';
import { type Listening, sql, type WakeUps } from '../src/db/database.js';
import { migrate } from '../src/db/migrations/migrate.js';
import { openDatabase } from '../src/db/open.js';
import type { ServerOptions } from '../src/db/options.js';
import { EventLog } from '../src/event-log/event-log.js';
import { Follower } from '../src/event-log/log-poller.js';
import { openEventLog } from '../src/event-log/open.js';
import { TableLog } from '../src/event-log/sql/sql-log-store.js';
import { silentLog } from '../src/logging/log.js';
import { Repeats } from '../src/logging/warning-aggregator.js';
import { Metrics } from '../src/metrics.js';
import { openStreaming } from '../src/stream/open.js';
import type { StreamAccess } from '../src/stream/routes.js';
import { findServer } from './support/databases/test-server.js';
import { notedDatabase } from './support/recording/noted-database.js';
import { until } from './support/until.js';

const server = await findServer('postgres');
const skip = typeof server === 'string' ? server : false;
if (typeof server !== 'string') {
  await migrate(server.options);
  after(() => server.drop());
}

const nobody: StreamAccess = {
  user: async () => ({ userId: '1', sessionId: 's' }),
  liveSession: async () => undefined,
  admitToken() {},
  reportLeak() {},
  admitStream() {},
};

/** So seldom that nothing in these tests can come from it. */
const never = { busy: 3_600_000, quiet: 3_600_000, woken: 3_600_000 };
const limits = { ageMaxMs: 1e12, eventsMax: 1e9, bytesMax: 1e12 };

/** A process with a log, which follows the others, and what it has heard. */
async function processOn(t: TestContext, options: ServerOptions) {
  const db = await openDatabase(options);
  const store = await TableLog.open(db, { clock: Date.now, newEpoch: 'e1' });
  const log = await EventLog.open({ store, log: silentLog, clock: Date.now, limits });
  const heard: string[] = [];
  log.subscribe({ deliver: ({ data }) => heard.push(data), deliverVolatile() {}, gap() {} });
  let looks = 0;
  const eventLog = {
    get head() {
      return log.head;
    },
    catchUp() {
      looks += 1;
      return log.catchUp();
    },
  };
  const { wakeUps } = db;
  const listen = (onAppended: () => void) => store.listen(onAppended);
  const follower = Follower.start({ eventLog, log: silentLog, listen, pollMs: never });
  t.after(async () => {
    await follower.close();
    await db.close();
  });
  return { log, heard, looks: () => looks, wakeUps };
}

const publish = ({ log }: { log: EventLog }, data: string) => {
  const event = { audiences: ['all'], type: undefined, data, expiresAt: undefined };
  return log.append({ events: [event], idempotency: undefined });
};

describe('postgres wakes the other processes', { skip }, () => {
  if (typeof server === 'string') return;
  const { options, administer } = server;

  test('at each commit, and not the one that wrote', async (t) => {
    const [one, other] = [await processOn(t, options), await processOn(t, options)];
    await until(() => one.looks() === 1 && other.looks() === 1); // Both have begun to listen.

    await publish(one, 'first');
    await until(() => other.heard.includes('first'));
    await publish(one, 'second');
    await until(() => other.heard.includes('second'));
    await publish(other, 'third');
    await until(() => one.heard.includes('third'));

    assert.deepEqual(one.heard, ['first', 'second', 'third']);
    assert.deepEqual(other.heard, one.heard);
    assert.equal(one.looks(), 2); // When it began to listen, and for the third.
  });

  test('also after the connection that listens was lost, and for what came meanwhile', async (t) => {
    const [one, other] = [await processOn(t, options), await processOn(t, options)];
    await until(() => one.looks() === 1 && other.looks() === 1);
    const before = one.heard.length;

    for (let round = 0; round < 3; round += 1) {
      const looks = other.looks();
      await administer(
        `select pg_terminate_backend(pid) from pg_stat_activity
          where datname = '${options.database}' and query like 'listen%'`,
      );
      await publish(one, `while nobody listens ${round}`);
      await until(() => other.heard.includes(`while nobody listens ${round}`));
      await until(() => other.looks() > looks);
      await publish(one, `afterwards ${round}`);
      await until(() => other.heard.includes(`afterwards ${round}`));
    }

    assert.equal(one.heard.length - before, 6);
    assert.deepEqual(other.heard, one.heard);
  });

  test('and nobody listens for a process that could not start', async (t) => {
    const db = await openDatabase(options);
    const { wakeUps } = db;
    const listening: Listening[] = [];
    const listen = (wake: () => void) => {
      const one = (wakeUps as WakeUps).listen(wake); // There is one on PostgreSQL.
      listening.push(one);
      return one;
    };
    const announce = async () => {};
    t.after(async () => {
      await Promise.all(listening.map((one) => one.close()));
      await db.execute(sql`alter table elsewhere rename to processes`);
      await db.close();
    });
    await db.execute(sql`alter table processes rename to elsewhere`);

    const watchedDb = { ...notedDatabase(db, []), wakeUps: { announce, listen } };
    const eventLog = await openEventLog({
      ...{ db: watchedDb, log: silentLog, clock: Date.now, newEpoch: 'e', onReplaced() {} },
      limits,
    });

    const starting = openStreaming({
      ...{ db: watchedDb, eventLog },
      ...{
        config: loadConfig({}).stream,
        log: silentLog,
        repeats: new Repeats({ log: silentLog, clock: Date.now }),
        clock: Date.now,
        random: Math.random,
        uptime: Date.now,
      },
      ...{ metrics: new Metrics(), access: nobody },
    });

    await assert.rejects(starting, /processes/);
    assert.deepEqual(listening, []);
  });

  test('but not where notifications would be lost in a pooler', async (t) => {
    const { wakeUps } = await processOn(t, { ...options, prepare: false });

    assert.equal(wakeUps, undefined);
  });
});
