import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { testOnDialects } from '../../test/support/databases/dialects.js';
import { databaseFor } from '../../test/support/databases/embedded.js';
import { Failure } from '../errors.js';
import { probeWrite } from '../event-log/sql/write-probe.js';
import { sql } from './database.js';
import { unavailable } from './failures.js';
import { HealthCheckedDatabase } from './health-checked-database.js';

const test = await testOnDialects('health-checked database');

/** Opens a database whose probe fails unless `state.isWritable`, and counts the probes. */
async function openHealthChecked(t: TestContext) {
  const state = { isWritable: true, probes: 0 };
  const db = new HealthCheckedDatabase(await databaseFor(t), async (wrapped) => {
    state.probes += 1;
    if (!state.isWritable) throw unavailable('no room');
    await probeWrite(wrapped, 100_000, state.probes);
  });
  const refuseWrite = () =>
    assert.rejects(
      db.transaction(async () => {
        throw unavailable('no room');
      }),
      Failure,
    );
  return { db, state, refuseWrite };
}

test('the check writes nothing while no write was refused', async (t) => {
  const { db, state } = await openHealthChecked(t);

  await db.check();
  await db.transaction(async (tx) => tx.execute(sql`delete from processes`));
  await assert.rejects(db.execute(sql`insert into nowhere (a) values (1)`)); // A defect.
  await db.check();

  assert.equal(state.probes, 0);
});

test('after a refused write the check fails until the probe has written', async (t) => {
  const { db, state, refuseWrite } = await openHealthChecked(t);
  state.isWritable = false;

  await refuseWrite();
  await assert.rejects(db.check(), { name: 'service_unavailable' });
  await db.execute(sql`delete from processes`); // Small writes may still succeed.
  await Promise.all([1, 2, 3].map(() => assert.rejects(db.check())));
  assert.equal(state.probes, 2);
  state.isWritable = true;
  await db.check();
  await db.check();

  assert.equal(state.probes, 3);
});

test('a refused batch is tracked, and only SQLite has batches', async (t) => {
  const wrapped = await databaseFor(t);
  const failing = Object.assign(Object.create(wrapped), {
    batch: wrapped.batch && (() => Promise.reject(unavailable('no room'))),
  });
  let probes = 0;
  const db = new HealthCheckedDatabase(failing, async () => {
    probes += 1;
  });

  assert.equal(db.batch === undefined, wrapped.dialect !== 'sqlite');
  if (db.batch === undefined) return;
  await assert.rejects(db.batch([sql`delete from processes`]), Failure);
  await db.check();

  assert.equal(probes, 1);
});

test('the probe rewrites one row that readers of the event log do not see', async (t) => {
  const { db, refuseWrite } = await openHealthChecked(t);
  const rows = () => db.query(sql`select seq, octet_length(data) as bytes from events`);

  for (let round = 0; round < 2; round += 1) {
    await refuseWrite();
    await db.check();

    assert.deepEqual(await rows(), [{ seq: 0, bytes: 100_000 }]);
  }
});
