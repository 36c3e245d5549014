import assert from 'node:assert/strict';
import { testOnDialects } from '../../../test/support/databases/dialects.js';
import {
  event,
  isUnavailable,
  keyedRequest,
  openStore,
  request,
} from '../../../test/support/databases/event-store.js';
import { databaseFor } from '../../../test/support/databases/test-database.js';
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
    await assert.rejects(store.readState(), isUnavailable);

    await until(() => replacedCalls > 0);
    const [head] = await db.query(sql`select epoch, seq from log_head`);
    assert.equal(replacedCalls, 1);
    assert.deepEqual({ ...head }, { epoch, seq });
    assert.equal((await db.query(sql`select seq from events`)).length, 3);
  });
}

test('appends and reads fail with service_unavailable while the head row is missing', async (t) => {
  const { db, store } = await openStore(t);
  await store.append([request(event('a'))]);
  await db.execute(sql`delete from log_head`);

  await assert.rejects(store.append([request(event('b'))]), isUnavailable);
  await assert.rejects(store.readState(), isUnavailable);
  await db.execute(
    sql`insert into log_head (id, epoch, seq, trimmed_seq, bytes) values (1, 'e1', 1, 0, 1)`,
  );

  assert.deepEqual((await store.append([request(event('b'))])).map(outlineOutcome), ['appended 2']);
});

/** Creates a request for events with these data. */
const toRequest = (...data: readonly string[]) => request(...data.map((text) => event(text)));

type Row = Readonly<Record<string, unknown>>;

/** Wraps a database and changes its next readings of the head, as a proxy does that mixes up responses. */
function withWrongHeads(db: Database) {
  const wrongHeads: ((head: Row) => object)[] = [];
  const wrapped: Database = {
    dialect: db.dialect,
    async query<Result extends object>(statement: Sql) {
      const rows = await db.query<Result>(statement);
      if (!statement.texts.join('').includes('from log_head')) return rows;
      const change = wrongHeads.shift();
      return change === undefined ? rows : rows.map((row) => change(row as Row) as Result);
    },
    execute: (statement) => db.execute(statement),
    transaction: (work) => db.transaction(work),
    close: () => db.close(),
  };
  return { wrapped, wrongHeads };
}

/** Opens the event log as a process does. `name` is the epoch that this process starts if it starts one. */
async function openProcess(db: Database, name: string, createdAt = 1000) {
  let replacedCount = 0;
  const onReplaced = () => {
    replacedCount += 1;
  };
  const options = { wallClock: () => createdAt, newEpoch: name, onReplaced };
  const store = await SqlLogStore.open(db, options);
  return { store, replacedCount: () => replacedCount };
}

const readHead = async (db: Database) => {
  const [head] = await db.query<{ epoch: string; seq: number }>(
    sql`select epoch, seq from log_head`,
  );
  return { ...head };
};

/** Deletes the entries above `seq`, as a failover to a primary that lacks the newest transactions does. */
async function loseEntriesAbove(db: Database, seq: number): Promise<void> {
  await db.execute(sql`delete from event_audiences where seq > ${seq}`);
  await db.execute(sql`delete from events where seq > ${seq}`);
  await db.execute(sql`update log_head set seq = ${seq}`);
}

const headChanges = {
  'another epoch': (head: Row) => ({ ...head, epoch: 'of another statement' }),
  'a lower counter': (head: Row) => ({ ...head, seq: 1 }),
  'another time of the newest event': (head: Row) => ({ ...head, own_created_at: 1 }),
};

for (const [what, change] of Object.entries(headChanges)) {
  test(`a reading of the head with ${what} is rejected, and the event log continues unchanged`, async (t) => {
    const { wrapped, wrongHeads } = withWrongHeads(await databaseFor(t));
    const { store, replacedCount } = await openProcess(wrapped, 'a');
    await store.append([toRequest('1', '2')]);

    wrongHeads.push(change, change);
    await assert.rejects(store.readState(), isUnavailable);
    await assert.rejects(store.readState(), isUnavailable);

    assert.deepEqual((await store.append([toRequest('3')])).map(outlineOutcome), ['appended 3']);
    assert.deepEqual(await readHead(wrapped), { epoch: 'a', seq: 3 });
    assert.equal(replacedCount(), 0);
  });
}

test('after a reading of the head that is too high, correct readings are accepted', async (t) => {
  const db = await databaseFor(t);
  const { wrapped, wrongHeads } = withWrongHeads(db);
  const { store, replacedCount } = await openProcess(wrapped, 'a');
  await store.append([toRequest('1', '2')]);

  wrongHeads.push((head) => ({ ...head, seq: 7 }));
  assert.equal((await store.readState()).seq, 7);

  assert.equal((await store.readState()).seq, 2);
  assert.deepEqual((await store.append([toRequest('3')])).map(outlineOutcome), ['appended 3']);
  assert.deepEqual(await readHead(db), { epoch: 'a', seq: 3 });
  assert.equal(replacedCount(), 0);
});

test('a process that opens with a reading of the head that is too high accepts correct readings', async (t) => {
  const db = await databaseFor(t);
  await (await openProcess(db, 'a')).store.append([toRequest('1', '2')]);
  const { wrapped, wrongHeads } = withWrongHeads(db);

  wrongHeads.push((head) => ({ ...head, seq: 7 }));
  const { store } = await openProcess(wrapped, 'b');

  assert.equal((await store.readState()).seq, 2);
  assert.equal((await store.readState()).seq, 2);
});

for (const [how, learn] of Object.entries({
  'read as the head twice': async (store: SqlLogStore) => {
    await store.readState();
    await store.readState();
  },
  'read as an entry': (store: SqlLogStore) => store.readAll({ after: 0, upTo: 3 }, 1e6),
})) {
  test(`a process notices the loss of an entry of another process that it has ${how}`, async (t) => {
    const db = await databaseFor(t);
    const other = await openProcess(db, 'a');
    const { store, replacedCount } = await openProcess(db, 'b');
    await other.store.append([toRequest('1', '2', '3')]);
    await learn(store);

    await loseEntriesAbove(db, 2);

    await assert.rejects(store.readState(), isUnavailable);
    await until(() => replacedCount() === 1);
    assert.deepEqual(await readHead(db), { epoch: 'br', seq: 2 });
  });
}

test('a process that finds entries missing starts a new epoch, even if another process appends meanwhile', async (t) => {
  const db = await databaseFor(t);
  const late = await openProcess(db, 'b', 2000);
  const { store, replacedCount } = await openProcess(db, 'a');
  await store.append([toRequest('1', '2', '3')]);
  await loseEntriesAbove(db, 1);

  await assert.rejects(store.readState(), isUnavailable);
  await late.store.append([toRequest('again 2', 'again 3', '4')]).catch(() => undefined);

  // The first confirmation may have waited for the append, with a snapshot from before it.
  await until(async () => {
    await store.readState().catch(() => undefined);
    return replacedCount() === 1;
  });
  assert.equal((await readHead(db)).epoch, 'ar');
  await assert.rejects(late.store.readState(), isUnavailable);
  await until(() => late.replacedCount() === 1);
});

for (const [how, notice] of Object.entries({
  'a read of the state': (store: SqlLogStore) => store.readState(),
  'an append': (store: SqlLogStore) => store.append([toRequest('5')]),
})) {
  test(`${how} notices that other processes have used the number of a lost event again`, async (t) => {
    const db = await databaseFor(t);
    const late = await openProcess(db, 'b', 2000);
    const { store, replacedCount } = await openProcess(db, 'a');
    await store.append([toRequest('1')]);
    await store.append([toRequest('2', '3')]);
    await loseEntriesAbove(db, 1);
    await late.store.append([toRequest('again 2', 'again 3', '4')]);

    await assert.rejects(Promise.resolve(notice(store)), isUnavailable);

    await until(() => replacedCount() === 1);
    assert.deepEqual(await readHead(db), { epoch: 'ar', seq: 4 });
    assert.equal((await db.query(sql`select seq from events where data = '5'`)).length, 0);
    await assert.rejects(late.store.readState(), isUnavailable);
  });
}

test('a process accepts heads after its newest event was trimmed', async (t) => {
  const db = await databaseFor(t);
  const { store, replacedCount } = await openProcess(db, 'a');
  await store.append([toRequest('1')]);
  await store.trim({ after: 0, upTo: 1, eventCount: 1, bytes: 129, now: 0 });

  assert.equal((await store.readState()).trimmedSeq, 1);
  assert.deepEqual((await store.append([toRequest('2')])).map(outlineOutcome), ['appended 2']);
  assert.equal(replacedCount(), 0);
});
