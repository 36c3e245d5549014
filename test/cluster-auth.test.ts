import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { type AccountParts, withAccounts } from '../src/commands/accounts.js';
import { withDatabase } from '../src/commands/database.js';
import { loadConfig } from '../src/config/config.js';
import { sql } from '../src/db/database.js';
import { H2Client, type H2Stream } from './support/clients/cluster-client.js';
import { findServer } from './support/databases/test-server.js';
import { recordedLog } from './support/recording/record.js';
import { clusterFor } from './support/servers/cluster.js';
import { until } from './support/until.js';

const password = 'correct horse battery';

interface Login {
  readonly accessToken: string;
  readonly refreshToken: string;
}

/** Two processes of the operating system on one database, and a connection to each. */
async function twoOf(t: TestContext, dialect: 'postgres' | 'mariadb' | 'mysql') {
  const cluster = await clusterFor(t, dialect);
  const operate = <Result>(work: (parts: AccountParts) => Promise<Result>) =>
    withAccounts(loadConfig(cluster.env), work);
  await operate(async ({ accounts }) => {
    for (const username of ['ada', 'bob']) {
      await accounts.create({ username, password, firstName: 'Ada', lastName: 'Lovelace' });
    }
  });
  const processes = await Promise.all([cluster.launch(), cluster.launch()]);
  assert.equal(new Set([process.pid, ...processes.map(({ pid }) => pid)]).size, 3);
  const [one, two] = processes.map(({ port }) => new H2Client(port, cluster.certificate));
  if (one === undefined || two === undefined) throw new Error('Cannot connect');
  t.after(() => {
    one.close();
    two.close();
  });
  return { cluster, operate, one, two };
}

async function login(client: H2Client, username: string): Promise<Login> {
  const json = { username, password };
  const { body } = await client.ask('POST', '/login', { json });
  return body as unknown as Login; // As the tests of the routes find.
}

async function streamOf(client: H2Client, { accessToken: bearer }: Login): Promise<H2Stream> {
  const stream = await client.openStream('/stream/live', { bearer });
  await stream.until((events) => events.length > 0);
  return stream;
}

/** Settles with the goodbye of a stream that ends by itself, soon. */
async function goodbyeOf(stream: H2Stream): Promise<unknown> {
  await until(() => stream.isClosed);
  return JSON.parse(stream.events.findLast(({ event }) => event === 'stream.close')?.data ?? '{}');
}

const revoked = { code: 'revoked', reconnect: false };

for (const dialect of ['postgres', 'mariadb', 'mysql'] as const) {
  const server = await findServer(dialect);
  const skip = typeof server === 'string' ? server : false;

  test(`${dialect}: in two processes of the operating system`, { skip }, async (t) => {
    const { cluster, operate, one, two } = await twoOf(t, dialect);
    const refresh = (client: H2Client, token: unknown) =>
      client.ask('POST', '/token', { json: { token } });

    await t.test('of twenty refreshes one rotates, and all get its successor', async () => {
      const { refreshToken } = await login(one, 'ada');

      const answers = await Promise.all(
        Array.from({ length: 20 }, (_, index) =>
          refresh(index % 2 === 0 ? one : two, refreshToken),
        ),
      );

      assert.deepEqual([...new Set(answers.map(({ status }) => status))], [200]);
      const successors = new Set(answers.map(({ body }) => body['refreshToken']));
      assert.equal(successors.size, 1);
      const rows = await withDatabase(loadConfig(cluster.env), recordedLog, (db) =>
        db.query(sql`select generation from sessions`),
      );
      assert.deepEqual(rows, [{ generation: 1 }]);
      const [token] = successors;
      assert.equal((await refresh(two, token)).status, 200);
    });

    await t.test('who is logged out in one is out in the other', async () => {
      const [ada, bob] = [await login(one, 'ada'), await login(one, 'bob')];
      const [hers, his] = [await streamOf(two, ada), await streamOf(two, bob)];

      const answer = await one.ask('POST', '/logout', { bearer: ada.accessToken });

      assert.equal(answer.status, 204);
      assert.deepEqual(await goodbyeOf(hers), revoked);
      assert.equal((await two.ask('GET', '/me', { bearer: ada.accessToken })).status, 401);
      assert.equal((await refresh(two, ada.refreshToken)).status, 401);
      assert.equal(his.isClosed, false);
    });

    await t.test('no stream that opens in one during a logout in the other lives on', async () => {
      const logins = [];
      for (let round = 0; round < 20; round += 1) logins.push(await login(one, 'bob'));

      const races = logins.map(({ accessToken: bearer }) =>
        Promise.all([
          two.openStream('/stream/live', { bearer }),
          one.ask('POST', '/logout', { bearer }),
        ]),
      );

      for (const [stream, { status }] of await Promise.all(races)) {
        assert.equal(status, 204);
        await stream.closed(); // It would never be, if it lived on.
      }
    });

    await t.test('a token that is used again in one ends the streams in the other', async () => {
      const ada = await login(one, 'ada');
      const stream = await streamOf(two, ada);
      const { body } = await refresh(two, ada.refreshToken);
      await refresh(one, body['refreshToken']);

      const reused = await refresh(one, ada.refreshToken);

      assert.equal(reused.status, 401);
      assert.deepEqual(await goodbyeOf(stream), revoked);
    });

    await t.test('a user deleted by the command is out in both', async () => {
      const here = await streamOf(one, await login(one, 'ada'));
      const there = await streamOf(two, await login(two, 'ada'));
      const other = await streamOf(two, await login(one, 'bob'));

      await operate(({ accounts }) => accounts.delete('ada'));

      const goodbyes = [goodbyeOf(here), goodbyeOf(there)];
      assert.deepEqual(await Promise.all(goodbyes), [revoked, revoked]);
      assert.equal(other.isClosed, false);
    });
  });
}
