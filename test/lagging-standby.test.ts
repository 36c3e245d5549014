import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { sql } from '../src/db/database.js';
import { migrate } from '../src/db/migrations/migrate.js';
import { openDatabase } from '../src/db/open.js';
import { SqlLogStore } from '../src/event-log/sql/sql-log-store.js';
import { createDedicatedServer } from './support/databases/dedicated-server.js';
import { openTcpProxy } from './support/tcp-proxy.js';
import { until } from './support/until.js';

const request = {
  events: [{ audiences: ['all'], type: undefined, data: 'x', expiresAt: undefined }],
  idempotency: undefined,
};

type Row = Readonly<Record<string, unknown>>;

/** Opens the event log on a PostgreSQL primary with a standby, at an address that can move to the standby. */
async function openReplicated(t: TestContext) {
  const closers: (() => Promise<unknown>)[] = [];
  t.after(async () => {
    for (const close of closers.reverse()) await close();
  });
  const primary = await createDedicatedServer('postgres');
  if (typeof primary === 'string') return primary;
  closers.push(() => primary.remove());
  await primary.start();
  const { port } = primary.options;
  const standby = await createDedicatedServer('postgres', { primaryPort: port });
  if (typeof standby === 'string') return standby;
  closers.push(() => standby.remove());
  await standby.start();
  const target = { host: '127.0.0.1', port };
  const proxy = await openTcpProxy(target);
  closers.push(() => proxy.close());
  const options = { ...primary.options, host: '127.0.0.1', port: proxy.port };
  await migrate(options);
  const db = await openDatabase(options);
  closers.push(() => db.close());
  let replacedCount = 0;
  const onReplaced = () => {
    replacedCount += 1;
  };
  const store = await SqlLogStore.open(db, { wallClock: Date.now, newEpoch: 'e', onReplaced });
  await store.append([request]);
  const readSeq = () =>
    store.readState().then(
      ({ seq }) => seq,
      () => undefined,
    );
  const [lsn] = (await primary.administer('select pg_current_wal_lsn()::text as lsn')) as Row[];
  const isReplayed = `select pg_last_wal_replay_lsn() >= '${lsn?.['lsn']}' as is_replayed`;
  await until(
    async () => ((await standby.administer(isReplayed)) as Row[])[0]?.['is_replayed'] === true,
  );
  const moveAddress = () => {
    target.port = standby.options.port;
    proxy.cut();
  };
  return { standby, db, store, readSeq, moveAddress, replacedCount: () => replacedCount };
}

test('postgres: the event log is unavailable while its server is a lagging standby, and continues after the promotion', async (t) => {
  const replicated = await openReplicated(t);
  if (typeof replicated === 'string') return t.skip(replicated);
  const { standby, store, readSeq, moveAddress, replacedCount } = replicated;
  await standby.administer('select pg_wal_replay_pause()');
  for (let count = 0; count < 3; count += 1) await store.append([request]);

  moveAddress();
  const readings = [];
  for (let count = 0; count < 20; count += 1) readings.push(await readSeq());
  assert.deepEqual(new Set(readings), new Set([undefined]));
  await standby.administer('select pg_wal_replay_resume()');
  await standby.administer('select pg_promote()');

  await until(async () => (await readSeq()) === 4);
  const [outcome] = await store.append([request]);
  assert.equal(outcome?.kind, 'appended');
  assert.equal(replacedCount(), 0);
});

test('postgres: after a failover to a standby that lacks the newest events, a new epoch starts', async (t) => {
  const replicated = await openReplicated(t);
  if (typeof replicated === 'string') return t.skip(replicated);
  const { standby, db, store, readSeq, moveAddress, replacedCount } = replicated;
  await standby.administer("alter system set primary_conninfo = ''");
  await standby.administer('select pg_reload_conf()');
  await until(async () => {
    const receivers = await standby.administer('select pid from pg_stat_wal_receiver');
    return (receivers as Row[]).length === 0;
  });
  for (let count = 0; count < 3; count += 1) await store.append([request]);

  await standby.administer('select pg_promote()');
  moveAddress();
  await until(async () => {
    await readSeq();
    return replacedCount() > 0;
  });

  const [head] = await db.query<{ epoch: string; seq: number }>(
    sql`select epoch, seq from log_head`,
  );
  assert.deepEqual({ ...head }, { epoch: 'er', seq: 1 });
  assert.equal(replacedCount(), 1);
});
