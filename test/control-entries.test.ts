import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { type TestContext, test } from 'node:test';
import { type AccountParts, withAccounts } from '../src/commands/accounts.js';
import { withDatabase } from '../src/commands/database.js';
import { loadConfig } from '../src/config/config.js';
import { type Database, sql } from '../src/db/database.js';
import { H2Client, type H2Stream, type Login } from './support/clients/h2-client.js';
import { waitForBlocked, whileLocked } from './support/databases/locks.js';
import { skipFor } from './support/databases/new-database.js';
import { findServer, type ServerDialect } from './support/databases/test-server.js';
import { recordedLog, recordSecret } from './support/recording/record.js';
import { clusterFor } from './support/servers/cluster.js';
import type { Username } from './support/servers/seed.js';
import { startSystem } from './support/servers/system.js';

interface Scenario {
  /** A client of the process that ends sessions. With the embedded database there is only one process. */
  readonly one: H2Client;
  /** A client of the process that has the streams. */
  readonly two: H2Client;
  readonly apiKey: string;
  readonly userIds: Readonly<Record<Username, string>>;
  /** Runs `work` as an account command does, outside the servers. */
  runAdmin<Result>(work: (parts: AccountParts) => Promise<Result>): Promise<Result>;
  withDatabase<Result>(work: (db: Database) => Promise<Result>): Promise<Result>;
}

/** Offsets of the clocks of each process from the clock of this machine; positive when ahead. */
interface ClockOffsets {
  oneMs: number;
  twoMs: number;
}

async function startEmbedded(t: TestContext): Promise<Scenario> {
  const system = await startSystem(t);
  const client = await system.connect();
  return {
    ...{ one: client, two: client, apiKey: system.apiKey, userIds: system.userIds },
    runAdmin: (work) => system.runAdmin(work),
    withDatabase: (work) => withDatabase(loadConfig(system.env), recordedLog, work),
  };
}

async function startTwoProcesses(
  t: TestContext,
  dialect: ServerDialect,
  offsets: ClockOffsets = { oneMs: 0, twoMs: 0 },
): Promise<Scenario> {
  const cluster = await clusterFor(t, dialect);
  // Shifts both clocks of a process, because a process ignores its wall clock when only that clock differs.
  const createClocks = (which: keyof ClockOffsets) => ({
    wallClock: () => Date.now() + offsets[which],
    monotonicClock: () => performance.now() + offsets[which],
  });
  const apps = [
    await cluster.start({}, createClocks('oneMs')),
    await cluster.start({}, createClocks('twoMs')),
  ];
  const [one, two] = await Promise.all(
    apps.map(({ port }) => H2Client.connect(`https://127.0.0.1:${port}`)),
  );
  if (one === undefined || two === undefined) throw new Error('Cannot connect');
  t.after(() => {
    one.destroy();
    two.destroy();
  });
  const config = loadConfig(cluster.env);
  return {
    ...{ one, two, apiKey: cluster.apiKey, userIds: cluster.userIds },
    runAdmin: (work) => withAccounts(config, work),
    withDatabase: (work) => withDatabase(config, recordedLog, work),
  };
}

/**
 * Logs in at one process and opens a stream at the other. Uses a stream token, because an access token
 * would make the second process compare its clock with that of the first.
 */
async function openStreamElsewhere(
  { one, two }: Scenario,
  username: Username = 'ada',
): Promise<Login & { stream: H2Stream }> {
  const login = await one.login(username);
  const { body } = await one.ask('POST', '/stream/token', { bearer: login.accessToken });
  const stream = await two.openStream(`/stream/live/${body['streamToken']}`);
  await stream.opening();
  return { ...login, stream };
}

async function publish(
  { apiKey, userIds }: Scenario,
  client: H2Client,
  data: string,
  more: object = {},
) {
  const json = { to: { users: Object.values(userIds) }, data, ...more };
  const { status, text } = await client.ask('POST', '/events', { bearer: apiKey, json });
  assert.equal(status, 201, text);
}

const revoked = { code: 'revoked', reconnect: false };

for (const dialect of ['postgres', 'mariadb', 'mysql'] as const) {
  const server = await findServer(dialect);
  const skip = typeof server === 'string' ? server : false;

  test(`${dialect}: a logout in one process ends streams in another process`, {
    skip,
  }, async (t) => {
    const offsets = { oneMs: 0, twoMs: 0 };
    const scenario = await startTwoProcesses(t, dialect, offsets);
    const { one, two } = scenario;

    await t.test(
      'a logout that waits for a lock delays no publisher, and ends the stream after the lock is released',
      async () => {
        const { accessToken, stream } = await openStreamElsewhere(scenario);
        const lock = sql`update sessions set generation = generation`;
        const workWhileLocked = (db: Database) =>
          whileLocked(db, lock, async (release) => {
            const logout = one.ask('POST', '/logout', { bearer: accessToken });
            await waitForBlocked(db, 'update sessions ');

            await publish(scenario, two, 'before');
            await stream.until(() => stream.dataByType('message').includes('before') || undefined);
            offsets.oneMs = 60_000; // Simulates that the logout has waited for a minute.
            await release();
            const { status } = await logout;
            await publish(scenario, one, 'after');

            assert.equal(status, 204);
            assert.deepEqual(await stream.closing(), revoked);
            assert.deepEqual(stream.dataByType('message'), ['before']);
          });
        await scenario.withDatabase(workWhileLocked);
      },
    );

    // In this order, because a monotonic clock never goes back.
    for (const [what, oneMs, twoMs] of [
      ['a minute ahead', 60_000, 0],
      ['a minute behind', 60_000, 120_000],
    ] as const) {
      await t.test(
        `a logout ends a stream in another process although the clock of the process that logs out is ${what}`,
        async () => {
          Object.assign(offsets, { oneMs, twoMs });
          const { accessToken, stream } = await openStreamElsewhere(scenario);

          const { status } = await one.ask('POST', '/logout', { bearer: accessToken });
          await publish(scenario, one, 'after');

          assert.equal(status, 204);
          assert.deepEqual(await stream.closing(), revoked);
          assert.deepEqual(stream.dataByType('message'), []);
        },
      );
    }
  });
}

// Commands that end sessions; each case uses another user.
const operations: readonly [string, Username, (parts: AccountParts) => Promise<unknown>][] = [
  ['a new password', 'ada', ({ accounts }) => accounts.setPassword('ada', 'a new long password')],
  ['disabling', 'bob', ({ accounts }) => accounts.disable('bob')],
  ['deletion', 'cyd', ({ accounts }) => accounts.delete('cyd')],
];

for (const dialect of ['sqlite', 'postgres', 'mariadb', 'mysql'] as const) {
  const skip = await skipFor(dialect);

  test(`${dialect}: no event follows the end of a session or API key`, { skip }, async (t) => {
    const scenario = await (dialect === 'sqlite'
      ? startEmbedded(t)
      : startTwoProcesses(t, dialect));
    const { one, two } = scenario;

    await t.test('an API key revoked during its request publishes no more events', async () => {
      const { stream } = await openStreamElsewhere(scenario);
      const { key } = await scenario.runAdmin(({ apiKeys }) =>
        apiKeys.create({ name: 'billing', scopes: ['publish'] }),
      );
      recordSecret(key);
      const lines = new PassThrough();
      const headers = { 'content-type': 'application/x-ndjson' };
      const answering = one.ask('POST', '/events', { bearer: key, headers, body: lines });
      const write = (data: string) => {
        // 500 lines, the size of a batch.
        const line = JSON.stringify({ to: { users: [scenario.userIds.ada] }, data });
        lines.write(`${line}\n`.repeat(500));
      };
      write('before');
      await stream.until(() => stream.dataByType('message').length >= 500 || undefined);

      await scenario.runAdmin(({ apiKeys }) => apiKeys.revoke('billing'));
      write('after');
      lines.end();
      const { status, body, headers: answered } = await answering;
      await publish(scenario, two, 'last');
      await stream.until(() => stream.dataByType('message').at(-1) === 'last' || undefined);

      assert.equal(status, 401);
      assert.equal(body['name'], 'invalid_token');
      assert.deepEqual(body['info'], { published: 500 });
      assert.match(answered['www-authenticate'] ?? '', /^Bearer/);
      assert.equal(stream.dataByType('message').length, 501);
      assert.equal(stream.dataByType('message').includes('after'), false);
    });

    await t.test(
      'an API key that gets a user prefix during a request publishes to no other users from then on',
      async () => {
        const { stream } = await openStreamElsewhere(scenario);
        const { key } = await scenario.runAdmin(({ apiKeys }) =>
          apiKeys.create({ name: 'shop', scopes: ['publish'] }),
        );
        recordSecret(key);
        const lines = new PassThrough();
        const headers = { 'content-type': 'application/x-ndjson' };
        const answering = one.ask('POST', '/events', { bearer: key, headers, body: lines });
        const toJson = (data: string) => ({ to: { users: [scenario.userIds.ada] }, data });
        lines.write(`${JSON.stringify(toJson('before'))}\n`);
        await stream.until(() => stream.dataByType('message').includes('before') || undefined);

        await scenario.runAdmin(({ apiKeys }) => apiKeys.change('shop', { userPrefix: 'shop:' }));
        lines.end(JSON.stringify(toJson('after')));
        const { status, body, headers: answered } = await answering;
        const retried = await two.ask('POST', '/events', { bearer: key, json: toJson('after') });
        const json = { ...toJson('after'), volatile: true };
        const volatile = await two.ask('POST', '/events', { bearer: key, json });
        await publish(scenario, two, 'last');
        await stream.until(() => stream.dataByType('message').at(-1) === 'last' || undefined);

        assert.deepEqual([status, body['name']], [503, 'service_unavailable']);
        assert.deepEqual(body['info'], { published: 1 });
        assert.equal(answered['retry-after'], '1');
        for (const answer of [retried, volatile])
          assert.deepEqual([answer.status, answer.body['name']], [403, 'user_not_allowed']);
        assert.deepEqual(stream.dataByType('message'), ['before', 'last']);
      },
    );

    await t.test('a volatile event after a logout does not reach the stream', async () => {
      const { accessToken, stream } = await openStreamElsewhere(scenario);

      const { status } = await one.ask('POST', '/logout', { bearer: accessToken });
      await publish(scenario, two, 'after', { volatile: true });

      assert.equal(status, 204);
      assert.deepEqual(await stream.closing(), revoked);
      assert.deepEqual(stream.dataByType('message'), []);
    });

    for (const [what, username, operation] of operations) {
      await t.test(`${what} by a command ends the streams of the user`, async () => {
        const { stream } = await openStreamElsewhere(scenario, username);
        await publish(scenario, two, 'before');

        await scenario.runAdmin(operation);
        await publish(scenario, one, 'after');
        await publish(scenario, two, 'after');

        assert.deepEqual(await stream.closing(), revoked);
        assert.deepEqual(stream.dataByType('message'), ['before']);
      });
    }
  });
}
