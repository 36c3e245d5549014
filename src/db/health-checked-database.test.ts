import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { testOnDialects } from '../../test/support/databases/dialects.js';
import { databaseFor } from '../../test/support/databases/test-database.js';
import { collectingLog } from '../../test/support/recording/collecting-log.js';
import { waitForLogLine } from '../../test/support/recording/wait-for-log.js';
import { Failure } from '../errors.js';
import { probeWrite } from '../event-log/sql/write-probe.js';
import { sql } from './database.js';
import { type UnavailableReason, unavailable } from './failures.js';
import { HealthCheckedDatabase } from './health-checked-database.js';

const test = await testOnDialects('health-checked database');

/** Opens a database whose probe fails unless `state.isWritable`, and counts the probes. */
async function openHealthChecked(t: TestContext, wal?: { bytes: number }) {
  const state = { isWritable: true, probes: 0, ms: 0 };
  const lines: Record<string, unknown>[] = [];
  const failures: UnavailableReason[] = [];
  const opened = await databaseFor(t);
  const measured = new Proxy(opened, {
    get(_, name) {
      if (name === 'walBytes') return wal?.bytes;
      const member = Reflect.get(opened, name);
      return typeof member === 'function' ? member.bind(opened) : member;
    },
  });
  const db = new HealthCheckedDatabase(wal === undefined ? opened : measured, {
    async probe(uncheckedDb) {
      state.probes += 1;
      if (!state.isWritable) throw unavailable('disk_full');
      await probeWrite(uncheckedDb, 100_000, state.probes);
    },
    log: collectingLog(lines),
    onUnavailable: (reason) => failures.push(reason),
    monotonicClock: () => state.ms,
  });
  const failWrite = (reason: UnavailableReason = 'disk_full') =>
    assert.rejects(
      db.transaction(async () => {
        throw unavailable(reason);
      }),
      Failure,
    );
  return { db, state, lines, failures, failWrite };
}

test('the check writes nothing until a write has been refused', async (t) => {
  const { db, state, lines } = await openHealthChecked(t);

  await db.check();
  await db.transaction(async (tx) => tx.execute(sql`delete from processes`));
  await assert.rejects(db.execute(sql`insert into nowhere (a) values (1)`)); // A defect.
  await db.check();

  assert.equal(state.probes, 0);
  assert.deepEqual(lines, []);
});

test('after a refused write the check fails until the probe has written', async (t) => {
  const { db, state, failWrite } = await openHealthChecked(t);
  state.isWritable = false;

  await failWrite();
  await assert.rejects(db.check(), { name: 'service_unavailable', reason: 'disk_full' });
  await db.execute(sql`delete from processes`); // Small writes may still succeed.
  await Promise.all([1, 2, 3].map(() => assert.rejects(db.check())));
  assert.equal(state.probes, 2);
  state.isWritable = true;
  await db.check();
  await db.check();

  assert.equal(state.probes, 3);
});

test('an outage is logged once per reason when it begins, and once when it ends', async (t) => {
  const { db, state, lines, failures, failWrite } = await openHealthChecked(t);
  state.isWritable = false;

  for (const reason of ['disk_full', 'disk_full', 'timeout', 'overloaded'] as const) {
    await failWrite(reason);
  }
  await assert.rejects(db.check());
  state.isWritable = true;
  state.ms = 5000;
  await waitForLogLine(lines, { phrase: 'database available again' }); // Without a check.
  await db.check();

  assert.deepEqual(
    lines.map(({ level, phrase, reason, reasons, ms }) => [level, phrase, reason ?? reasons, ms]),
    [
      ['warn', 'database unavailable', 'disk_full', undefined],
      ['warn', 'database unavailable', 'timeout', undefined],
      ['info', 'database available again', ['disk_full', 'timeout'], 5000],
    ],
  );
  const expected = ['disk_full', 'disk_full', 'timeout', 'overloaded', 'disk_full'];
  assert.deepEqual(failures.slice(0, 5), expected);
});

test('overload is counted but not logged', async (t) => {
  const { lines, failures, failWrite } = await openHealthChecked(t);

  await failWrite('overloaded');

  assert.deepEqual(failures, ['overloaded']);
  assert.deepEqual(lines, []);
});

test(
  'a write-ahead log is reported as large when it exceeds 128 MiB, until it has shrunk to 64 MiB',
  async (t) => {
    const mib = 1024 * 1024;
    const wal = { bytes: 0 };
    const { db, lines } = await openHealthChecked(t, wal);
    const sizes = [128 * mib, 128 * mib + 1, 64 * mib + 1, 64 * mib, 128 * mib];
    const results = [];

    for (const bytes of sizes) {
      wal.bytes = bytes;
      await db.execute(sql`delete from processes`);
      results.push(await db.check());
    }

    assert.deepEqual(results, [undefined, 'wal_large', 'wal_large', undefined, undefined]);
    assert.deepEqual(
      lines.map(({ level, phrase, bytes }) => [level, phrase, bytes]),
      [
        ['warn', 'write-ahead log cannot be reset', sizes[1]],
        ['info', 'write-ahead log was reset', sizes[3]],
      ],
    );
  },
  ['sqlite'],
);

test('a refused batch counts as a refused write, and only SQLite has batches', async (t) => {
  const { db, state } = await openHealthChecked(t);

  assert.equal(db.batch === undefined, db.dialect !== 'sqlite');
  if (db.batch === undefined) return;
  const tooLarge = sql`insert into processes (id) values (${'x'.repeat(40 * 1024 * 1024)})`;
  await assert.rejects(db.batch([tooLarge]), { reason: 'overloaded' });
  await db.check();

  assert.equal(state.probes, 1);
});

test('the probe rewrites one row that readers of the event log do not see', async (t) => {
  const { db, failWrite } = await openHealthChecked(t);
  const rows = () => db.query(sql`select seq, octet_length(data) as bytes from events`);

  for (let round = 0; round < 2; round += 1) {
    await failWrite();
    await db.check();

    assert.deepEqual(await rows(), [{ seq: 0, bytes: 100_000 }]);
  }
});

test(
  'a check of the embedded database waits behind a write that hangs',
  async (t) => {
    const { db } = await openHealthChecked(t);
    const order: string[] = [];
    let release = () => {};
    const hanging = new Promise<void>((resolve) => {
      release = resolve;
    });

    const writing = db.transaction(() => hanging).then(() => order.push('write'));
    const checking = db.check().then(() => order.push('check'));
    await db.query(sql`select 1 as one`); // The reader has answered the check, too.
    release();
    await Promise.all([writing, checking]);

    assert.deepEqual(order, ['write', 'check']);
  },
  ['sqlite'],
);
