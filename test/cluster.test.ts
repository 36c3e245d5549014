import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withDatabase } from '../src/commands/database.js';
import { loadConfig } from '../src/config/config.js';
import { sql } from '../src/db/database.js';
import { H2Client, type H2Stream } from './support/clients/h2-client.js';
import { findServer } from './support/databases/test-server.js';
import { recordedLog } from './support/recording/record.js';
import { clusterFor } from './support/servers/cluster.js';
import type { Username } from './support/servers/seed.js';

/** Resolves when the latest `count` event of a stream is `users`. */
const waitForCount = (stream: H2Stream, users: string) =>
  stream.until(() => stream.dataByType('count').at(-1) === users || undefined);

for (const dialect of ['postgres', 'mariadb', 'mysql'] as const) {
  const server = await findServer(dialect);
  const skip = typeof server === 'string' ? server : false;

  test(`${dialect}: three processes on one database`, { skip }, async (t) => {
    const cluster = await clusterFor(t, dialect);
    const { apiKey: key, userIds } = cluster;
    const ids = [userIds.ada, userIds.bob];
    const processes = await Promise.all([cluster.launch(), cluster.launch(), cluster.launch()]);
    const clients = await Promise.all(processes.map(({ url }) => H2Client.connect(url)));
    t.after(() => {
      for (const client of clients) client.destroy();
    });
    assert.equal(new Set([process.pid, ...processes.map(({ pid }) => pid)]).size, 4);

    await t.test('every client receives every event once, in the same order', async () => {
      const total = 3 * 16 * 4; // Processes, publishers per process, events per publisher.

      /** Receives all events, moving to another process every 40 events. */
      const listen = async (username: Username, firstProcess: number, onOpen: () => void) => {
        const seen: string[] = [];
        let bearer = '';
        for (let turn = firstProcess; seen.length < total; turn += 1) {
          const client = clients[turn % 3] as H2Client; // Safe: there are three.
          if (bearer === '') bearer = (await client.login(username)).accessToken;
          const lastEventId = seen.at(-1);
          const headers: Record<string, string> =
            lastEventId === undefined ? {} : { 'last-event-id': lastEventId };
          const stream = await client.listenAs(bearer, headers);
          const wanted = Math.min(40, total - seen.length);
          onOpen();
          await stream.until(() => stream.ids.length >= wanted || undefined);
          stream.abort();
          await stream.ended();
          const opened = JSON.parse(stream.events[0]?.data ?? '{}');
          assert.equal(opened.resumed, lastEventId !== undefined, JSON.stringify(opened));
          seen.push(...stream.ids);
        }
        return seen;
      };
      const listeners = ['ada', 'ada', 'bob', 'bob'] as const;
      const received: Promise<readonly string[]>[] = [];
      // All streams are open before the first publish.
      for (const [index, username] of listeners.entries()) {
        await new Promise<void>((opened, failed) => {
          const listening = listen(username, index, opened);
          listening.catch(failed);
          received.push(listening);
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
        clients.flatMap((client, clientIndex) =>
          Array.from({ length: 16 }, (_, index) => publish(client, clientIndex * 16 + index)),
        ),
      );

      const [reference = [], ...others] = await Promise.all(received);
      const seqs = reference.map((id) => Number(id.split('-')[1]));
      assert.deepEqual(
        seqs,
        Array.from({ length: total }, (_, index) => index + 1),
      );
      for (const other of others) assert.deepEqual(other, reference);
    });

    const [one, two] = clients as [H2Client, H2Client]; // Safe: there are three.

    await t.test('the user count includes the users of all processes', async () => {
      const adaStream = await one.listenAs(await one.accessToken('ada'));
      const bobStream = await two.listenAs(await two.accessToken('bob'));

      await waitForCount(adaStream, '2');
      await waitForCount(bobStream, '2');
      bobStream.abort();
      await waitForCount(adaStream, '1');
    });

    await t.test('opening a stream token in another process ends its older stream', async () => {
      const path = await one.streamPath('ada');

      const older = await one.openStream(path);
      const newer = await two.openStream(path);
      await older.event('stream.close');

      assert.equal(JSON.parse(older.events.at(-1)?.data ?? '{}').code, 'replaced');
      const newest = await one.openStream(path); // In the first process again.
      await newer.event('stream.close');
      assert.equal(newest.isEnded, false);
    });

    await t.test('replacing the event log ends all processes and changes the epoch', async () => {
      const bearer = await one.accessToken('ada');
      const stream = await one.listenAs(bearer);
      const json = { to: 'all', data: 'before' };
      const { body } = await one.ask('POST', '/events', { bearer: key, json });
      await stream.until(() => stream.lastId);

      await withDatabase(loadConfig(cluster.env), recordedLog, async (db) => {
        for (const table of [sql`event_audiences`, sql`events`]) {
          await db.execute(sql`delete from ${table}`);
        }
        await db.execute(sql`update log_head set epoch = 'restored', seq = 3 where id = 1`);
      });
      await stream.event('stream.close');
      const codes = await Promise.all(processes.map(({ exited }) => exited));
      const { url } = await cluster.launch();
      const newClient = await H2Client.connect(url);
      t.after(() => newClient.destroy());
      const headers = { 'last-event-id': String(body['id']) };
      const reopened = await newClient.listenAs(bearer, headers);
      const published = await newClient.ask('POST', '/events', { bearer: key, json });

      assert.deepEqual(codes, [1, 1, 1]);
      assert.deepEqual(await stream.closing(), { code: 'behind', reconnect: true });
      assert.equal(JSON.parse(reopened.events[0]?.data ?? '{}').reason, 'epoch_changed');
      assert.equal(published.body['id'], 'restored-4');
    });
  });
}
