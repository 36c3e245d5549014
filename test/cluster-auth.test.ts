import assert from 'node:assert/strict';
import { constants } from 'node:http2';
import { type TestContext, test } from 'node:test';
import { type AccountParts, withAccounts } from '../src/commands/accounts.js';
import { withDatabase } from '../src/commands/database.js';
import { loadConfig } from '../src/config/config.js';
import { sql } from '../src/db/database.js';
import { H2Client, type H2Stream, type Login } from './support/clients/h2-client.js';
import { waitForBlocked, whileLocked } from './support/databases/locks.js';
import { findServer } from './support/databases/test-server.js';
import { recordedLog } from './support/recording/record.js';
import { clusterFor } from './support/servers/cluster.js';
import { until } from './support/until.js';

/** Starts two server processes on one database and connects to each. */
async function startTwoProcesses(t: TestContext, dialect: 'postgres' | 'mariadb' | 'mysql') {
  const cluster = await clusterFor(t, dialect);
  const runAdmin = <Result>(work: (parts: AccountParts) => Promise<Result>) =>
    withAccounts(loadConfig(cluster.env), work);
  const processes = await Promise.all([cluster.launch(), cluster.launch()]);
  assert.equal(new Set([process.pid, ...processes.map(({ pid }) => pid)]).size, 3);
  const [one, two] = await Promise.all(processes.map(({ url }) => H2Client.connect(url)));
  if (one === undefined || two === undefined) throw new Error('Cannot connect');
  t.after(() => {
    one.destroy();
    two.destroy();
  });
  return { cluster, runAdmin, one, two };
}

const listen = (client: H2Client, { accessToken }: Login) => client.listenAs(accessToken);

/** Waits until the server has ended a stream; returns the data of its `stream.close`. */
async function waitForCloseFrame(stream: H2Stream): Promise<unknown> {
  await until(() => stream.isEnded);
  return stream.closing();
}

const revoked = { code: 'revoked', reconnect: false };

for (const dialect of ['postgres', 'mariadb', 'mysql'] as const) {
  const serverOrReason = await findServer(dialect);
  const skip = typeof serverOrReason === 'string' ? serverOrReason : false;

  test(`${dialect}: auth in two processes on one database`, { skip }, async (t) => {
    const { cluster, runAdmin, one, two } = await startTwoProcesses(t, dialect);
    const refresh = (client: H2Client, token: unknown) =>
      client.ask('POST', '/token', { json: { token } });

    await t.test(
      'one of twenty refreshes rotates the token, and all get the same successor',
      async () => {
        const { refreshToken } = await one.login('ada');

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
      },
    );

    await t.test(
      'a logout in one process ends the streams and tokens of its session in the other',
      async () => {
        const [ada, bob] = [await one.login('ada'), await one.login('bob')];
        const [adaStream, bobStream] = [await listen(two, ada), await listen(two, bob)];

        const answer = await one.ask('POST', '/logout', { bearer: ada.accessToken });

        assert.equal(answer.status, 204);
        assert.deepEqual(await waitForCloseFrame(adaStream), revoked);
        assert.equal((await two.ask('GET', '/me', { bearer: ada.accessToken })).status, 401);
        assert.equal((await refresh(two, ada.refreshToken)).status, 401);
        assert.equal(bobStream.isEnded, false);
      },
    );

    await t.test('no stream in one process stays open after a logout in the other', async () => {
      const logins = [];
      for (let round = 0; round < 20; round += 1) logins.push(await one.login('bob'));

      const races = logins.map(({ accessToken: bearer }) =>
        Promise.all([
          two.openStream('/stream/live', { authorization: `Bearer ${bearer}` }),
          one.ask('POST', '/logout', { bearer }),
        ]),
      );

      for (const [stream, { status }] of await Promise.all(races)) {
        assert.equal(status, 204);
        await stream.ended(); // Never resolves for a stream that stays open.
      }
    });

    await t.test('refresh token reuse in one process ends the streams in the other', async () => {
      const ada = await one.login('ada');
      const stream = await listen(two, ada);
      let newest: unknown = ada.refreshToken;
      // After nine refreshes the first token counts as reused, even in the grace period of the last one.
      for (let count = 0; count < 9; count += 1) {
        newest = (await refresh(two, newest)).body['refreshToken'];
      }

      const reused = await refresh(one, ada.refreshToken);

      assert.equal(reused.status, 401);
      assert.deepEqual(await waitForCloseFrame(stream), revoked);
    });

    await t.test('reuse by a client that has disconnected does not end the session', async () => {
      const ada = await one.login('ada');
      let newest: unknown = ada.refreshToken;
      for (let count = 0; count < 9; count += 1) {
        newest = (await refresh(one, newest)).body['refreshToken'];
      }

      await withDatabase(loadConfig(cluster.env), recordedLog, (db) =>
        whileLocked(db, sql`update sessions set ip_key = ip_key`, async (release) => {
          const json = { token: ada.refreshToken };
          const reusing = one.request('POST', '/token', { json });
          reusing.on('error', () => {}); // It is reset below.
          await waitForBlocked(db, 'update sessions set revoked_at');
          reusing.close(constants.NGHTTP2_CANCEL);
          await one.ask('GET', '/health/live'); // Frames are processed in order.
          await release();
        }),
      );

      assert.equal((await refresh(two, newest)).status, 200);
    });

    await t.test(
      'deleting a user by command ends the streams of the user in both processes',
      async () => {
        const streamOnOne = await listen(one, await one.login('ada'));
        const streamOnTwo = await listen(two, await two.login('ada'));
        const bobStream = await listen(two, await one.login('bob'));

        await runAdmin(({ accounts }) => accounts.delete('ada'));

        const closeFrames = [waitForCloseFrame(streamOnOne), waitForCloseFrame(streamOnTwo)];
        assert.deepEqual(await Promise.all(closeFrames), [revoked, revoked]);
        assert.equal(bobStream.isEnded, false);
      },
    );
  });
}
