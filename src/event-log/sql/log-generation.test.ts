import assert from 'node:assert/strict';
import { testOnDialects } from '../../../test/support/databases/dialects.js';
import { databaseFor } from '../../../test/support/databases/embedded.js';
import {
  event,
  isUnavailable,
  keyedRequest,
  openStore,
  request,
} from '../../../test/support/databases/event-store.js';
import { outlineOutcome } from '../../../test/support/outline-outcome.js';
import { until } from '../../../test/support/until.js';
import { type Database, type Sql, sql } from '../../db/database.js';
import { SqlLogStore } from './sql-log-store.js';

const test = await testOnDialects('replaced event logs');

/**
 * Statements that replace the event log, and the head expected afterwards. If the counter went back, a new
 * epoch is started, because sequence numbers would be used again.
 */
const replacements = {
  'another epoch': { replace: sql`update log_head set epoch = 'e2'`, epoch: 'e2', seq: 3 },
  'another epoch and a higher counter': {
    replace: sql`update log_head set epoch = 'e2', seq = 9`,
    ...{ epoch: 'e2', seq: 9 },
  },
  'a lower counter': { replace: sql`update log_head set seq = 1`, epoch: 'e1r', seq: 1 },
};

for (const [what, { replace, epoch, seq }] of Object.entries(replacements)) {
  test(`after the event log was replaced with ${what}, a running process rejects reads and appends`, async (t) => {
    const db = await databaseFor(t);
    let replacedCalls = 0;
    const onReplaced = () => {
      replacedCalls += 1;
    };
    const store = await SqlLogStore.open(db, { wallClock: Date.now, newEpoch: 'e1', onReplaced });
    await store.append([request(event('a'), event('b')), keyedRequest('k', 'b', event('c'))]);
    await db.execute(replace);

    await assert.rejects(store.append([request(event('d'))]), isUnavailable);
    await assert.rejects(store.append([keyedRequest('k', 'b', event('c'))]), isUnavailable);
    await assert.rejects(store.state(), isUnavailable);

    await until(() => replacedCalls > 0);
    const [head] = await db.query(sql`select epoch, seq from log_head`);
    assert.equal(replacedCalls, 1);
    assert.deepEqual({ ...head }, { epoch, seq });
    assert.equal((await db.query(sql`select seq from events`)).length, 3);
  });
}

test('one wrong reading of the head is rejected, and the event log goes on unchanged', async (t) => {
  const db = await databaseFor(t);
  let wrongReadings = 0;
  let headReadings = 0;
  const unreliableDb: Database = {
    dialect: db.dialect,
    async query<Row extends object>(statement: Sql) {
      const rows = await db.query<Row>(statement);
      if (!statement.texts.join('').includes('from log_head')) return rows;
      headReadings += 1;
      if (wrongReadings === 0) return rows;
      wrongReadings -= 1;
      return rows.map((row) => ({ ...row, epoch: 'of another statement' }));
    },
    execute: (statement) => db.execute(statement),
    transaction: (work) => db.transaction(work),
    close: () => db.close(),
  };
  let isReplaced = false;
  const onReplaced = () => {
    isReplaced = true;
  };
  const options = { wallClock: Date.now, newEpoch: 'e1', onReplaced };
  const store = await SqlLogStore.open(unreliableDb, options);
  await store.append([request(event('a'))]);

  wrongReadings = 3; // The statement itself, and two of the readings that would confirm it.
  headReadings = 0;
  await assert.rejects(store.state(), isUnavailable);
  await until(() => headReadings === 4);

  assert.equal((await store.state()).epoch, 'e1');
  assert.deepEqual((await store.append([request(event('b'))])).map(outlineOutcome), ['appended 2']);
  assert.equal(isReplaced, false);
});

test('appends and reads fail with service_unavailable while the head row is missing', async (t) => {
  const { db, store } = await openStore(t);
  await store.append([request(event('a'))]);
  await db.execute(sql`delete from log_head`);

  await assert.rejects(store.append([request(event('b'))]), isUnavailable);
  await assert.rejects(store.state(), isUnavailable);
  await db.execute(
    sql`insert into log_head (id, epoch, seq, trimmed_seq, bytes) values (1, 'e1', 1, 0, 1)`,
  );

  assert.deepEqual((await store.append([request(event('b'))])).map(outlineOutcome), ['appended 2']);
});
