import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { testOnDialects } from '../../../test/support/databases/dialects.js';
import { databaseFor } from '../../../test/support/databases/test-database.js';
import { StreamProcess } from '../../../test/support/stream-process.js';
import type { Database } from '../../db/database.js';
import { type OpenStreamQuery, selectOpenStreams, toOpenStream } from './open-stream.js';
import { StreamTable } from './stream-table.js';

const test = await testOnDialects('the table of open streams');

const [one, two] = ['aaaaaaaaaaaaaaaa', 'bbbbbbbbbbbbbbbb'];
const firstPage = { user: undefined, userPrefix: '', after: '', limit: 100 };

/** Returns both implementations of a list of the same streams: in the table, and in memory. */
async function createLists(t: TestContext, users: readonly string[]) {
  const table = new StreamTable(await databaseFor(t));
  const streams = await StreamProcess.open();
  for (const user of users) await streams.openStream({ user });
  await table.insert([...streams.registry.streams].map((stream) => toOpenStream(stream, one)));
  return {
    ids: streams.ids,
    lists: [
      (query: OpenStreamQuery) => table.list([one, two], query),
      async (query: OpenStreamQuery) => {
        const found = selectOpenStreams(streams.registry.streams, one, query);
        return found.map((stream) => ({ ...stream, unsentBytes: 0 })); // The table has no backlog.
      },
    ],
  };
}

test('pages follow each other in the order of the ids, without overlap', async (t) => {
  const { ids, lists } = await createLists(t, ['1', '2', '3', '4', '5']);

  for (const list of lists) {
    const listIds = async (query: Partial<OpenStreamQuery>) =>
      (await list({ ...firstPage, ...query })).map(({ id }) => id);
    assert.deepEqual(await listIds({}), ids);
    assert.deepEqual(await listIds({ limit: 2 }), ids.slice(0, 2));
    assert.deepEqual(await listIds({ limit: 2, after: ids[1] ?? '' }), ids.slice(2, 4));
    assert.deepEqual(await listIds({ limit: 2, after: ids[4] ?? '' }), []);
  }
});

test('streams are selected by user and by prefix of the user, compared exactly', async (t) => {
  const users = ['shop:1', 'shop:10', 'Shop:1', 'shop', 'shop;1', 'ashop:1', 'shop:~', 'sh_p:1'];
  const { lists } = await createLists(t, users);

  for (const list of lists) {
    const listUsers = async (query: Partial<OpenStreamQuery>) =>
      (await list({ ...firstPage, ...query })).map(({ user }) => user).sort();
    assert.deepEqual(await listUsers({}), [...users].sort());
    assert.deepEqual(await listUsers({ user: 'shop:1' }), ['shop:1']);
    assert.deepEqual(await listUsers({ user: 'shop:' }), []);
    assert.deepEqual(await listUsers({ userPrefix: 'shop:' }), ['shop:1', 'shop:10', 'shop:~']);
    assert.deepEqual(await listUsers({ userPrefix: 'sh_p:' }), ['sh_p:1']);
    assert.deepEqual(await listUsers({ userPrefix: 'shop:', user: 'shop:1' }), ['shop:1']);
    assert.deepEqual(await listUsers({ userPrefix: 'shop:', user: 'Shop:1' }), []);
  }
});

test('only the streams of the given processes are listed', async (t) => {
  const table = new StreamTable(await databaseFor(t));
  for (const [name, process] of [
    ['a', one],
    ['b', two],
  ] as const) {
    const streams = await StreamProcess.open(name);
    const { stream } = await streams.openStream();
    await table.insert([toOpenStream(stream, process)]);
  }

  const listProcesses = async (ids: readonly string[]) =>
    (await table.list(ids, firstPage)).map(({ process }) => process);

  assert.deepEqual(await listProcesses([one, two]), [one, two]);
  assert.deepEqual(await listProcesses([two]), [two]);
  assert.deepEqual(await listProcesses([]), []);
});

/** Stores streams of two processes. `counts` has the number of streams per process for each user. */
async function fillProcesses(db: Database, counts: Readonly<Record<string, [number, number]>>) {
  const table = new StreamTable(db);
  const processes = [await StreamProcess.open('a'), await StreamProcess.open('b')] as const;
  for (const [user, [inOne, inTwo]] of Object.entries(counts)) {
    await processes[0].openStreams(inOne, { user });
    await processes[1].openStreams(inTwo, { user });
  }
  await table.insert([...processes[0].registry.streams].map((stream) => toOpenStream(stream, one)));
  await table.insert([...processes[1].registry.streams].map((stream) => toOpenStream(stream, two)));
  return table;
}

test('the remote streams of a user are found once the user has reached the limit over all processes', async (t) => {
  const table = await fillProcesses(await databaseFor(t), {
    ...{ under: [1, 1], at: [1, 2], over: [2, 2], here: [3, 0], there: [0, 3], At: [0, 2] },
  });

  const found = await table.findRemoteAtLimit(3, [two]);

  const users = found.map(({ userId }) => userId).sort();
  assert.deepEqual(users, ['at', 'at', 'over', 'over', 'there', 'there', 'there']);
  assert.equal(new Set(found.map(({ publicId }) => publicId)).size, 7);
});

test('if more than 500 users are at the limit, all their remote streams are found', async (t) => {
  const counts = Array.from({ length: 501 }, (_, user) => [`user-${user}`, [1, 1]] as const);
  const table = await fillProcesses(await databaseFor(t), Object.fromEntries(counts) as never);

  const found = await table.findRemoteAtLimit(2, [two]);

  assert.equal(new Set(found.map(({ userId }) => userId)).size, 501);
});

/** Stores streams of another process: `streamsPerUser` streams of each user. */
async function storeRemote(table: StreamTable, userCount: number, streamsPerUser: number) {
  const common = { process: two, session: 's', openedAt: 1, address: '', userAgent: undefined };
  const rows = Array.from({ length: userCount * streamsPerUser }, (_, index) => {
    const id = index.toString(16).padStart(32, '0');
    const user = `user-${index % userCount}`;
    return { ...common, id, stream: id, user, eventsBehind: 0, unsentBytes: 0 };
  });
  await table.insert(rows);
}

test(
  'if more than 10,000 users are at the limit, the streams of 10,000 users are found',
  async (t) => {
    const table = new StreamTable(await databaseFor(t));
    await storeRemote(table, 10_001, 1);

    assert.equal((await table.findRemoteAtLimit(1, [two])).length, 10_000);
  },
  ['sqlite'],
);

test(
  'reading the streams of users at the limit stops after the batch of users that reaches 20,000 streams',
  async (t) => {
    const table = new StreamTable(await databaseFor(t));
    await storeRemote(table, 501, 40);

    assert.equal((await table.findRemoteAtLimit(40, [two])).length, 20_000);
  },
  ['sqlite'],
);
