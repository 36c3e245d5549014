import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { AccountParts } from '../src/commands/accounts.js';
import { withAccounts } from '../src/commands/accounts.js';
import { withDatabase } from '../src/commands/database.js';
import { loadConfig } from '../src/config/config.js';
import { sql } from '../src/db/database.js';
import type { OpenStream } from '../src/stream/open-streams/open-stream.js';
import { H2Client, type H2Stream } from './support/clients/h2-client.js';
import { findServer, type ServerDialect } from './support/databases/test-server.js';
import { recordedLog, recordSecret } from './support/recording/record.js';
import { clusterFor } from './support/servers/cluster.js';
import { startSystem } from './support/servers/system.js';
import { until } from './support/until.js';

/** Creates a key that may list streams. */
async function createKey(parts: AccountParts): Promise<string> {
  const { key } = await parts.apiKeys.create({ name: 'lists', scopes: ['streams'] });
  recordSecret(key);
  return key;
}

async function list(client: H2Client, bearer: string): Promise<readonly OpenStream[]> {
  const { status, body, text } = await client.ask('GET', '/v1/streams?limit=1000', { bearer });
  assert.equal(status, 200, text);
  return body['items'] as readonly OpenStream[];
}

/** Waits until `count` streams are listed. */
async function waitForStreams(client: H2Client, bearer: string, count: number) {
  let listed: readonly OpenStream[] = [];
  await until(async () => {
    listed = await list(client, bearer);
    return listed.length === count;
  });
  return listed;
}

const getOpening = (stream: H2Stream) => JSON.parse(stream.events[0]?.data ?? '{}');

test('sqlite: streams opened with a stream token or an access token are listed from their opening to their end', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const key = await system.runAdmin(createKey);
  assert.deepEqual(await list(client, key), []);

  const userAgent = `browser/1 é ${'x'.repeat(300)}`;
  const byToken = await client.listen('ada', { 'user-agent': userAgent });
  const byBearer = await client.listenAs(await client.accessToken('bob'));

  const listed = await list(client, key);
  const [ada, bob] = ['ada', 'bob'].map((name) =>
    listed.find(({ user }) => user === system.userIds[name as 'ada' | 'bob']),
  );
  assert.equal(listed.length, 2);
  assert.equal(ada?.stream, getOpening(byToken).stream);
  assert.notEqual(ada?.stream, ada?.id);
  assert.equal(bob?.stream, getOpening(byBearer).stream);
  assert.equal(ada?.address, '127.0.0.1');
  assert.match(ada?.userAgent ?? '', /^browser\/1 [ -~]*x$/);
  assert.equal(ada?.userAgent?.length, 255);
  assert.equal(bob?.userAgent, undefined);
  assert.ok(Math.abs(Date.now() - (ada?.openedAt ?? 0)) < 60_000);
  const { body } = await client.ask('GET', `/v1/streams?user=${bob?.user}`, { bearer: key });
  assert.deepEqual(body, { items: [bob], next: bob?.id, more: false });
  byToken.abort();
  byBearer.abort();
  await waitForStreams(client, key, 0);
});

test('a stream behind a proxy is listed with the address of its client, cut to 64 characters', async (t) => {
  const system = await startSystem(t, { env: { TRUST_PROXY_HOPS: '1' } });
  const client = await system.connect();
  const key = await system.runAdmin(createKey);
  const zone = 'z'.repeat(100);

  await client.listen('ada', { 'x-forwarded-for': '2001:db8::1' });
  await client.listen('bob', { 'x-forwarded-for': `fe80::1%${zone}` });

  const addresses = (await list(client, key)).map(({ address }) => address).sort();
  assert.deepEqual(addresses, ['2001:db8::1', `fe80::1%${zone}`.slice(0, 64)]);
});

test('GET /v1/streams requires a key with the scope streams', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const getStatus = async (bearer?: string) =>
    (await client.ask('GET', '/v1/streams', bearer === undefined ? {} : { bearer })).status;

  assert.equal(await getStatus(), 401);
  assert.equal(await getStatus(await client.accessToken('ada')), 401);
  const { key } = await system.runAdmin(({ apiKeys }) =>
    apiKeys.create({ name: 'publisher', scopes: ['publish'] }),
  );
  recordSecret(key);
  assert.equal(await getStatus(key), 403);
  assert.equal(await getStatus(await system.runAdmin(createKey)), 200);
});

async function startTwoProcesses(t: TestContext, dialect: ServerDialect) {
  const cluster = await clusterFor(t, dialect);
  const env = { MAX_STREAMS_PER_USER: '2', STREAM_OPEN_IP_RATE: '100000/1000' };
  const processes = await Promise.all([cluster.launch(env), cluster.launch(env)]);
  const clients = await Promise.all(processes.map(({ url }) => H2Client.connect(url)));
  t.after(() => {
    for (const client of clients) client.destroy();
  });
  const key = await withAccounts(loadConfig(cluster.env), createKey);
  const [one, two] = clients as [H2Client, H2Client]; // Safe: there are two.
  return { cluster, processes, one, two, key };
}

for (const dialect of ['postgres', 'mariadb', 'mysql'] as const) {
  const server = await findServer(dialect);
  const skip = typeof server === 'string' ? server : false;

  test(`${dialect}: open streams of two processes`, { skip }, async (t) => {
    const { cluster, processes, one, two, key } = await startTwoProcesses(t, dialect);
    const { ada, bob } = cluster.userIds;

    await t.test('each process lists the streams of both', async () => {
      const streams = [await one.listen('ada'), await two.listen('bob')];

      const listed = await waitForStreams(one, key, 2);
      assert.deepEqual(await list(two, key), listed);
      assert.equal(new Set(listed.map(({ process }) => process)).size, 2);
      assert.deepEqual(
        new Set(listed.map(({ stream, user }) => `${stream} ${user}`)),
        new Set(streams.map(getOpening).map(({ stream, user }) => `${stream} ${user}`)),
      );
      for (const stream of streams) stream.abort();
      await waitForStreams(two, key, 0);
    });

    await t.test('the limit per user counts the streams of both processes', async () => {
      const tokenPath = await one.streamPath('ada');
      const first = await one.openStream(tokenPath);
      await first.opening();
      const second = await one.listen('ada');
      await waitForStreams(two, key, 2);
      const bearer = await two.accessToken('ada');
      /** Opens and closes a stream in the second process. Returns the status. */
      const open = async () => {
        const headers = { accept: '*/*', authorization: `Bearer ${bearer}` };
        const stream = await two.openStream('/stream/live', headers);
        stream.abort();
        await stream.ended();
        return stream.status;
      };

      await until(async () => (await open()) === 429);
      assert.equal(await open(), 429); // All streams of the loop are closed.
      const moved = await two.openStream(tokenPath); // Like a client that moves from process to process.
      await moved.opening();
      assert.equal((await first.closing())?.code, 'replaced');

      second.abort();
      await until(async () => (await open()) === 200);
      moved.abort();
      await waitForStreams(two, key, 0);
    });

    await t.test(
      'the streams of a killed process leave the list, and the streams of the other process stay',
      async () => {
        await one.listen('ada');
        await two.listen('bob');
        const listed = await waitForStreams(two, key, 2);
        const killed = listed.find(({ user }) => user === ada)?.process ?? '';

        await processes[0]?.end('SIGKILL');
        // Instead of waiting for 10 s.
        await withDatabase(loadConfig(cluster.env), recordedLog, (db) =>
          db.execute(sql`update processes set seen_at = seen_at - ${10_001} where id = ${killed}`),
        );

        assert.deepEqual(
          (await list(two, key)).map(({ user }) => user),
          [bob],
        );
      },
    );

    await t.test('a process that stops deletes the rows of its streams', async () => {
      await processes[1]?.end('SIGTERM');

      const rows = await withDatabase(loadConfig(cluster.env), recordedLog, (db) =>
        db.query<{ user_id: string }>(sql`select user_id from open_streams`),
      );
      assert.deepEqual(
        rows.map((row) => row.user_id),
        [ada], // Of the killed process, until 60 s after its last heartbeat.
      );
    });
  });
}
