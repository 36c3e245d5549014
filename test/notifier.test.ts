import assert from 'node:assert/strict';
import { after, describe, type TestContext, test } from 'node:test';
import { loadConfig } from '../src/config/config.js';
import { type Notifier, type Subscription, sql } from '../src/db/database.js';
import { migrate } from '../src/db/migrations/migrate.js';
import { openDatabase } from '../src/db/open.js';
import type { DatabaseServerOptions } from '../src/db/options.js';
import { PostgresNotifier } from '../src/db/postgres/notifier.js';
import { EventLog } from '../src/event-log/event-log.js';
import { LogPoller } from '../src/event-log/log-poller.js';
import { openEventLog } from '../src/event-log/open.js';
import { SqlLogStore } from '../src/event-log/sql/sql-log-store.js';
import { publisherKeys } from '../src/identity/api-keys.js';
import { silentLogger } from '../src/logging/logger.js';
import { WarningAggregator } from '../src/logging/warning-aggregator.js';
import { Metrics } from '../src/metrics.js';
import { openStreaming } from '../src/stream/open.js';
import type { StreamAccess } from '../src/stream/routes.js';
import { findServer } from './support/databases/test-server.js';
import { withStatementLog } from './support/recording/statement-hooks.js';
import { unlimitedRetention } from './support/unlimited-retention.js';
import { until } from './support/until.js';

const server = await findServer('postgres');
const skip = typeof server === 'string' ? server : false;
if (typeof server !== 'string') {
  await migrate(server.options);
  after(() => server.drop());
}

const access: StreamAccess = {
  verifyUser: () => Promise.reject(new Error('not used in these tests')),
  parseCredential: () => '',
  findLiveSession: async () => undefined,
  checkTokenRate() {},
  reportLeak() {},
  checkStreamRate() {},
};

/** Intervals so long that no poll delivers an event in these tests. */
const hourlyPolls = { busy: 3_600_000, idle: 3_600_000, notified: 3_600_000 };

/** Opens an event log and polls it as a process does; records received events and polls. */
async function startProcess(t: TestContext, options: DatabaseServerOptions) {
  const db = await openDatabase(options);
  const store = await SqlLogStore.open(db, { wallClock: Date.now, newEpoch: 'e1' });
  const log = await EventLog.open({
    store,
    log: silentLogger,
    wallClock: Date.now,
    limits: unlimitedRetention,
  });
  const received: string[] = [];
  log.subscribe({
    deliver: ({ data }) => received.push(data),
    deliverVolatile() {},
    applyControl() {},
    handleGap() {},
  });
  let polls = 0;
  const eventLog = {
    get head() {
      return log.head;
    },
    catchUp() {
      polls += 1;
      return log.catchUp();
    },
  };
  const { notifier } = db;
  const listen = (onAppended: () => void) => store.listen(onAppended);
  const poller = LogPoller.start({ eventLog, log: silentLogger, listen, pollMs: hourlyPolls });
  t.after(async () => {
    await poller.close();
    await db.close();
  });
  return { log, received, polls: () => polls, notifier };
}

const publish = ({ log }: { log: EventLog }, data: string) => {
  const event = { audiences: ['all'], type: undefined, data, expiresAt: undefined };
  return log.append({ events: [event], idempotency: undefined });
};

describe('postgres notifications', { skip }, () => {
  if (typeof server === 'string') return;
  const { options, administer } = server;

  test('a commit notifies all other processes', async (t) => {
    const [one, other] = [await startProcess(t, options), await startProcess(t, options)];
    await until(() => one.polls() === 1 && other.polls() === 1); // Both are listening.

    await publish(one, 'first');
    await until(() => other.received.includes('first'));
    await publish(one, 'second');
    await until(() => other.received.includes('second'));
    await publish(other, 'third');
    await until(() => one.received.includes('third'));

    assert.deepEqual(one.received, ['first', 'second', 'third']);
    assert.deepEqual(other.received, one.received);
    assert.equal(one.polls(), 2); // When it began to listen, and for the third event.
  });

  test('the LISTEN connection is replaced at the end of its life', async (t) => {
    const notifier = new PostgresNotifier(options, { checkMs: 20, lifeMs: 100 });
    let notifications = 0;

    const subscription = notifier.subscribe(() => {
      notifications += 1; // Once per connection, because nobody publishes.
    });

    t.after(() => subscription.close());
    await until(() => notifications === 3 && subscription.isActive);
  });

  test('a lost LISTEN connection is reopened and missed events are read', async (t) => {
    const [one, other] = [await startProcess(t, options), await startProcess(t, options)];
    await until(() => one.polls() === 1 && other.polls() === 1);
    const before = one.received.length;

    for (let round = 0; round < 3; round += 1) {
      const polls = other.polls();
      await administer(
        `select pg_terminate_backend(pid) from pg_stat_activity
          where datname = '${options.database}' and query like 'listen%'`,
      );
      await publish(one, `while nobody listens ${round}`);
      await until(() => other.received.includes(`while nobody listens ${round}`));
      await until(() => other.polls() > polls);
      await publish(one, `afterwards ${round}`);
      await until(() => other.received.includes(`afterwards ${round}`));
    }

    assert.equal(one.received.length - before, 6);
    assert.deepEqual(other.received, one.received);
  });

  test('a process that fails to start leaves no LISTEN connection', async (t) => {
    const db = await openDatabase(options);
    const { notifier } = db;
    const listening: Subscription[] = [];
    const subscribe = (onNotify: () => void) => {
      const one = (notifier as Notifier).subscribe(onNotify); // PostgreSQL has a notifier.
      listening.push(one);
      return one;
    };
    const notify = async () => {};
    t.after(async () => {
      await Promise.all(listening.map((one) => one.close()));
      await db.execute(sql`alter table elsewhere rename to processes`);
      await db.close();
    });
    await db.execute(sql`alter table processes rename to elsewhere`);

    const watchedDb = { ...withStatementLog(db, []), notifier: { notify, subscribe } };
    const eventLog = await openEventLog({
      ...{
        db: watchedDb,
        log: silentLogger,
        wallClock: Date.now,
        newEpoch: 'e',
        onReplaced() {},
        publisherKeys,
      },
      limits: unlimitedRetention,
    });

    const starting = openStreaming({
      ...{ db: watchedDb, eventLog },
      ...{
        config: loadConfig({}).stream,
        log: silentLogger,
        warnings: new WarningAggregator({ log: silentLogger, monotonicClock: Date.now }),
        wallClock: Date.now,
        random: Math.random,
        monotonicClock: Date.now,
      },
      ...{ metrics: new Metrics(), access, appendControlEntries: async () => 0 },
    });

    await assert.rejects(starting, /processes/);
    assert.deepEqual(listening, []);
  });

  test('notifications are off behind a transaction pooler', async (t) => {
    const { notifier } = await startProcess(t, { ...options, prepare: false });

    assert.equal(notifier, undefined);
  });
});
