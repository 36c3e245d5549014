import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { testOnDialects } from '../../../test/support/databases/dialects.js';
import { databaseFor } from '../../../test/support/databases/test-database.js';
import { StreamProcess } from '../../../test/support/stream-process.js';
import { type Database, sql } from '../../db/database.js';
import { Failure } from '../../errors.js';
import { StreamRows } from './stream-rows.js';
import { StreamTable } from './stream-table.js';

const test = await testOnDialects('rows of open streams');

const processId = 'aaaaaaaaaaaaaaaa';
const everything = { user: undefined, userPrefix: '', after: '', limit: 100_000 };
const createLostFailure = () =>
  new Failure('service_unavailable', 'Cannot reach the database: lost');

/** Wraps a database. If `faults.next` is set, the next statement that writes fails before or after its commit. */
function withFaults(db: Database, faults: { next?: 'before' | 'after' | undefined }): Database {
  return {
    ...{ dialect: db.dialect, query: (statement) => db.query(statement) },
    async execute(statement) {
      const fault = faults.next;
      faults.next = undefined;
      if (fault === 'before') throw createLostFailure();
      const rows = await db.execute(statement);
      if (fault === 'after') throw createLostFailure();
      return rows;
    },
    transaction: (work) => db.transaction(work),
    close: () => db.close(),
  };
}

async function openProcess(t: TestContext) {
  const db = await databaseFor(t);
  const faults: { next?: 'before' | 'after' | undefined } = {};
  const table = new StreamTable(withFaults(db, faults));
  const streams = await StreamProcess.open();
  const rows = new StreamRows(table, () => streams.registry.streams, processId);
  const list = (id = processId) => table.list([id], everything);
  const listIds = async (id = processId) => (await list(id)).map((stream) => stream.id);
  return { db, table, streams, rows, faults, list, listIds };
}

test('a stream has a row from the first sync after it has opened to the first after it has ended', async (t) => {
  const { streams, rows, list, listIds } = await openProcess(t);
  const client = { address: '2001:db8::1', userAgent: 'a "browser"; 1 % ?' };
  const traits = { user: 'auth0|1', session: 's'.repeat(32), publicId: 'f'.repeat(32), client };
  const { stream } = await streams.openStream({ ...traits, openedAt: 1_800_000_000_001 });
  await streams.openStream({ user: '1' });
  assert.deepEqual(await list(), []);

  await rows.sync();
  const [first] = await list();
  assert.deepEqual(first, {
    ...{ id: stream.id, stream: 'f'.repeat(32), user: 'auth0|1', session: 's'.repeat(32) },
    ...{ process: processId, openedAt: 1_800_000_000_001, ...client },
    ...{ eventsBehind: 0, unsentBytes: 0 },
  });
  assert.deepEqual(await listIds(), streams.ids);

  stream.close('draining');
  await rows.sync();

  assert.deepEqual(await listIds(), streams.ids);
  assert.equal(streams.ids.length, 1);
});

test('the address and the user agent of a row have their longest values', async (t) => {
  const { streams, rows, list } = await openProcess(t);
  const client = { address: 'f'.repeat(64), userAgent: '~'.repeat(255) };
  await streams.openStream({ client, user: '~'.repeat(255) });

  await rows.sync();

  assert.equal((await list())[0]?.user.length, 255);
});

test(
  'a sync writes 5000 rows, and the next sync writes the others',
  async (t) => {
    const { streams, rows, listIds } = await openProcess(t);
    await streams.openStreams(5001);

    const counts: number[] = [];
    const sync = async () => {
      await rows.sync();
      counts.push((await listIds()).length);
    };
    await sync();
    await sync();
    assert.deepEqual(counts, [5000, 5001]);
    for (const stream of [...streams.registry.streams]) stream.close('draining');
    await sync();
    await sync();
    await sync();

    assert.deepEqual(counts, [5000, 5001, 1, 0, 0]);
  },
  ['sqlite'],
);

test('the backlog of a stream is stored when the stream is behind at two syncs, and is reset once', async (t) => {
  const { streams, rows, list } = await openProcess(t);
  const { client, stream } = await streams.openStream();
  const syncAndRead = async () => {
    await rows.sync();
    const [found] = await list();
    return { events: found?.eventsBehind, hasUnsent: (found?.unsentBytes ?? 0) > 0 };
  };
  for (let number = 1; number <= 3; number += 1) await streams.publish('x'.repeat(1000));
  await streams.publish('last');
  assert.ok(stream.eventsBehind > 0);
  assert.deepEqual(await syncAndRead(), { events: 0, hasUnsent: false });
  assert.deepEqual(await syncAndRead(), { events: stream.eventsBehind, hasUnsent: true });

  while ((client.sink?.queuedBytes ?? 0) > 0) {
    client.sink?.acceptBytes(1e6);
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(client.received.at(-1)?.data, 'last');
  assert.deepEqual(await syncAndRead(), { events: 0, hasUnsent: false });
});

test(
  'a stream that has unsent bytes for a moment costs no update',
  async (t) => {
    const { db, streams } = await openProcess(t);
    const statements: string[] = [];
    const counted: Database = {
      ...{ dialect: db.dialect, query: (statement) => db.query(statement) },
      execute(statement) {
        statements.push(statement.texts[0]?.split(' ')[0] ?? '');
        return db.execute(statement);
      },
      transaction: (work) => db.transaction(work),
      close: () => db.close(),
    };
    const rows = new StreamRows(
      new StreamTable(counted),
      () => streams.registry.streams,
      processId,
    );
    const { client } = await streams.openStream();
    await rows.sync();
    client.sink?.acceptBytes(1e6);

    await rows.sync();
    await rows.sync();

    assert.deepEqual(statements, ['insert']);
  },
  ['sqlite'],
);

test('a sync stores the backlog of 500 streams, and the next sync stores that of the others', async (t) => {
  const { streams, rows, list } = await openProcess(t);
  await streams.openStreams(501);
  const countUnsent = async () => {
    await rows.sync();
    return (await list()).filter(({ unsentBytes }) => unsentBytes > 0).length;
  };

  assert.deepEqual([await countUnsent(), await countUnsent(), await countUnsent()], [0, 500, 501]);
});

for (const when of ['before', 'after'] as const) {
  test(`a sync after an insert that failed ${when} its commit leaves a row for each open stream`, async (t) => {
    const { streams, rows, faults, listIds } = await openProcess(t);
    const { stream } = await streams.openStream();
    await streams.openStream();
    faults.next = when;
    await assert.rejects(rows.sync(), { name: 'service_unavailable' });

    stream.close('draining'); // Its row exists if the insert was committed.
    await streams.openStream();
    await rows.sync();

    assert.deepEqual(await listIds(), streams.ids);
    assert.equal(streams.ids.length, 2);
  });

  test(`a sync after a delete that failed ${when} its commit deletes the row`, async (t) => {
    const { streams, rows, faults, listIds } = await openProcess(t);
    const { stream } = await streams.openStream();
    await rows.sync();
    stream.close('draining');
    faults.next = when;
    await assert.rejects(rows.sync(), { name: 'service_unavailable' });

    await rows.sync();

    assert.deepEqual(await listIds(), []);
  });
}

test('a backlog that could not be stored is stored by a later sync', async (t) => {
  const { streams, rows, faults, list } = await openProcess(t);
  await streams.openStream();
  await rows.sync();
  faults.next = 'before';
  await assert.rejects(rows.sync(), { name: 'service_unavailable' });

  await rows.sync();
  await rows.sync();

  assert.ok(((await list())[0]?.unsentBytes ?? 0) > 0);
});

test('after a change of the process id, all rows are written again', async (t) => {
  const { db, streams, rows, listIds } = await openProcess(t);
  await streams.openStreams(3);
  await rows.sync();
  const [deleted = ''] = streams.ids;
  await db.execute(sql`delete from open_streams where stream_id = ${deleted}`); // As other processes do.

  rows.changeProcessId('bbbbbbbbbbbbbbbb');
  await rows.sync();

  assert.deepEqual(await listIds('bbbbbbbbbbbbbbbb'), streams.ids);
  assert.deepEqual(await listIds(), []);
  await rows.deleteAll();
  assert.deepEqual(await listIds('bbbbbbbbbbbbbbbb'), []);
});
