import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withAccounts } from '../src/commands/accounts.js';
import { withDatabase } from '../src/commands/database.js';
import { loadConfig } from '../src/config/config.js';
import { sql } from '../src/db/database.js';
import { H2Client, type H2Stream, type StreamEvent } from './support/clients/cluster-client.js';
import { findServer } from './support/databases/test-server.js';
import { recordedLog } from './support/recording/record.js';
import { type Cluster, clusterFor } from './support/servers/cluster.js';

const password = 'correct horse battery';

/** Users that can log in, and a key to publish with. */
async function people(cluster: Cluster, names: readonly string[]) {
  return withAccounts(loadConfig(cluster.env), async ({ accounts, apiKeys }) => {
    const ids: string[] = [];
    for (const username of names) {
      const names = { firstName: 'A', lastName: 'B' };
      ids.push((await accounts.create({ username, password, ...names })).id);
    }
    const { key } = await apiKeys.create({ name: 'test', scopes: ['publish'] });
    return { ids, key };
  });
}

const idsOf = (events: readonly StreamEvent[]) => events.flatMap(({ id }) => id ?? []);
const countsOf = (events: readonly StreamEvent[]) =>
  events.filter(({ event }) => event === 'count').map(({ data }) => data);

for (const dialect of ['postgres', 'mariadb', 'mysql'] as const) {
  const server = await findServer(dialect);
  const skip = typeof server === 'string' ? server : false;

  test(`${dialect}: three processes of the operating system`, { skip }, async (t) => {
    const cluster = await clusterFor(t, dialect);
    const { ids, key } = await people(cluster, ['ada', 'bob']);
    const processes = await Promise.all([cluster.launch(), cluster.launch(), cluster.launch()]);
    const clients = processes.map(({ port }) => new H2Client(port, cluster.certificate));
    t.after(() => {
      for (const client of clients) client.close();
    });
    assert.equal(new Set([process.pid, ...processes.map(({ pid }) => pid)]).size, 4);

    await t.test('give every client every event once, in one order', async () => {
      const total = 3 * 16 * 4;

      /** Listens until it has all, moving on to another process every 40 events. */
      const listen = async (username: string, first: number, onOpen: () => void) => {
        const seen: string[] = [];
        let bearer = '';
        for (let turn = first; seen.length < total; turn += 1) {
          const client = clients[turn % 3] as H2Client; // Safe: there are three.
          if (bearer === '') bearer = await client.login(username, password);
          const lastEventId = seen.at(-1);
          const headers: Record<string, string> =
            lastEventId === undefined ? {} : { 'last-event-id': lastEventId };
          const stream = await client.openStream('/stream/live', { bearer, headers });
          const wanted = Math.min(40, total - seen.length);
          await stream.until((events) => events.length > 0);
          onOpen();
          await stream.until((events) => idsOf(events).length >= wanted);
          stream.cut();
          await stream.closed();
          const opened = JSON.parse(stream.events[0]?.data ?? '{}');
          assert.equal(opened.resumed, lastEventId !== undefined, JSON.stringify(opened));
          seen.push(...idsOf(stream.events));
        }
        return seen;
      };
      const listeners = ['ada', 'ada', 'bob', 'bob'];
      const heard: Promise<readonly string[]>[] = [];
      // All listen before anything is published.
      for (const [index, username] of listeners.entries()) {
        await new Promise<void>((opened, failed) => {
          const listening = listen(username, index, opened);
          listening.catch(failed);
          heard.push(listening);
        });
      }

      const publish = async (client: H2Client, publisher: number) => {
        for (let count = 0; count < 4; count += 1) {
          const json = { to: { users: ids }, data: { publisher, count } };
          const { status } = await client.ask('POST', '/events', { bearer: key, json });
          assert.equal(status, 201);
        }
      };
      await Promise.all(
        clients.flatMap((client, at) =>
          Array.from({ length: 16 }, (_, index) => publish(client, at * 16 + index)),
        ),
      );

      const [reference = [], ...others] = await Promise.all(heard);
      const seqs = reference.map((id) => Number(id.split('-')[1]));
      assert.deepEqual(
        seqs,
        Array.from({ length: total }, (_, index) => index + 1),
      );
      for (const other of others) assert.deepEqual(other, reference);
    });

    const [one, two] = clients as [H2Client, H2Client]; // Safe: there are three.

    await t.test('count the users of all of them', async () => {
      const open = async (client: H2Client, username: string): Promise<H2Stream> =>
        client.openStream('/stream/live', { bearer: await client.login(username, password) });

      const here = await open(one, 'ada');
      const there = await open(two, 'bob');

      await here.until((events) => countsOf(events).at(-1) === '2');
      await there.until((events) => countsOf(events).at(-1) === '2');
      there.cut();
      await here.until((events) => countsOf(events).at(-1) === '1');
    });

    await t.test('end the older stream of a token that is opened in another', async () => {
      const bearer = await one.login('ada', password);
      const { body } = await one.ask('POST', '/stream/token', { bearer });
      const path = `/stream/live/${body['streamToken']}`;

      const older = await one.openStream(path);
      const newer = await two.openStream(path);
      await older.until((events) => events.at(-1)?.event === 'stream.close');

      assert.equal(JSON.parse(older.events.at(-1)?.data ?? '{}').code, 'replaced');
      const again = await one.openStream(path); // And back: the newest wins, wherever it is.
      await newer.until((events) => events.at(-1)?.event === 'stream.close');
      assert.equal(again.isClosed, false);
    });

    await t.test('end when the log is replaced: on return clients are told', async () => {
      const bearer = await one.login('ada', password);
      const stream = await one.openStream('/stream/live', { bearer });
      const json = { to: 'all', data: 'before' };
      const { body } = await one.ask('POST', '/events', { bearer: key, json });
      await stream.until((events) => idsOf(events).length > 0);

      await withDatabase(loadConfig(cluster.env), recordedLog, async (db) => {
        for (const table of [sql`event_audiences`, sql`events`]) {
          await db.execute(sql`delete from ${table}`);
        }
        await db.execute(sql`update log_head set epoch = 'restored', seq = 3 where id = 1`);
      });
      await stream.until((events) => events.at(-1)?.event === 'stream.close');
      const codes = await Promise.all(processes.map(({ exited }) => exited));
      const { port } = await cluster.launch();
      const next = new H2Client(port, cluster.certificate);
      t.after(() => next.close());
      const headers = { 'last-event-id': String(body['id']) };
      const returned = await next.openStream('/stream/live', { bearer, headers });
      await returned.until((events) => events.length > 0);
      const published = await next.ask('POST', '/events', { bearer: key, json });

      assert.deepEqual(codes, [1, 1, 1]);
      assert.deepEqual(JSON.parse(stream.events.at(-1)?.data ?? '{}'), {
        code: 'behind',
        reconnect: true,
      });
      assert.equal(JSON.parse(returned.events[0]?.data ?? '{}').reason, 'epoch_changed');
      assert.equal(published.body['id'], 'restored-4');
    });
  });
}
