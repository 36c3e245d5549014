import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { type TestContext, test } from 'node:test';
import { type AccountParts, withAccounts } from '../src/commands/accounts.js';
import { withDatabase } from '../src/commands/database.js';
import { loadConfig } from '../src/config/config.js';
import { type Database, sql } from '../src/db/database.js';
import { H2Client, type H2Stream, type Login } from './support/clients/h2-client.js';
import { skipFor } from './support/databases/new-database.js';
import { findServer, type ServerDialect } from './support/databases/test-server.js';
import { recordedLog, recordSecret } from './support/recording/record.js';
import { clusterFor } from './support/servers/cluster.js';
import type { Username } from './support/servers/seed.js';
import { startSystem } from './support/servers/system.js';
import { until } from './support/until.js';

interface Scenario {
  /** Where things end: for the embedded database the same server as `two`. */
  readonly one: H2Client;
  /** Where streams are. */
  readonly two: H2Client;
  readonly apiKey: string;
  readonly userIds: Readonly<Record<Username, string>>;
  /** What the command line does beside the servers. */
  runAdmin<Result>(work: (parts: AccountParts) => Promise<Result>): Promise<Result>;
  withDatabase<Result>(work: (db: Database) => Promise<Result>): Promise<Result>;
}

interface ScenarioOptions {
  /** Of the first process, from that of the second, in ms. */
  readonly clockOffset?: () => number;
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

async function startTwo(
  t: TestContext,
  dialect: ServerDialect,
  { clockOffset = () => 0 }: ScenarioOptions = {},
): Promise<Scenario> {
  const cluster = await clusterFor(t, dialect);
  const apps = [
    await cluster.start({}, { wallClock: () => Date.now() + clockOffset() }),
    await cluster.start(),
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

/** Logs in at one process and opens a stream at the other, by a stream token: no process compares times. */
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

  test(`${dialect}: a logout by another process`, { skip }, async (t) => {
    let offset = 0;
    const scenario = await startTwo(t, dialect, { clockOffset: () => offset });
    const { one, two } = scenario;

    await t.test('that waits for a row stops no publisher, and ends its stream', async () => {
      const { accessToken, stream } = await openStreamElsewhere(scenario);
      let release = () => {};
      const released = new Promise<void>((resolve) => {
        release = resolve;
      });
      let isLocked = false;
      const locking = scenario.withDatabase((db) =>
        db.transaction(async (tx) => {
          await tx.execute(sql`update sessions set generation = generation`);
          isLocked = true;
          await released;
        }),
      );
      await until(async () => isLocked);
      const logout = one.ask('POST', '/logout', { bearer: accessToken });
      await scenario.withDatabase((db) => until(() => isUpdateWaiting(db)));

      await publish(scenario, two, 'before');
      await stream.until(() => stream.dataByType('message').includes('before') || undefined);
      offset = 60_000; // As if it had waited for so long.
      release();
      const { status } = await logout;
      await publish(scenario, one, 'after');

      assert.equal(status, 204);
      assert.deepEqual(await stream.closing(), revoked);
      assert.deepEqual(stream.dataByType('message'), ['before']);
      await locking;
    });

    for (const [what, ms] of [
      ['a minute behind', -60_000],
      ['a minute ahead', 60_000],
    ] as const) {
      await t.test(`whose clock is ${what} ends its stream`, async () => {
        offset = ms;
        const { accessToken, stream } = await openStreamElsewhere(scenario);

        const { status } = await one.ask('POST', '/logout', { bearer: accessToken });
        await publish(scenario, one, 'after');

        assert.equal(status, 204);
        assert.deepEqual(await stream.closing(), revoked);
        assert.deepEqual(stream.dataByType('message'), []);
      });
    }
  });
}

/** Whether another connection is in a statement that waits for a lock on `sessions`. */
async function isUpdateWaiting(db: Database): Promise<boolean> {
  const waiting =
    db.dialect === 'postgres'
      ? sql`select pid from pg_stat_activity
          where datname = current_database() and wait_event_type = 'Lock'`
      : // Not `innodb_trx`: it is a cache, which is not refreshed while it is read more than ten times a second.
        sql`select id from information_schema.processlist
          where db = database() and id <> connection_id() and info like ${'update sessions%'}`;
  return (await db.query(waiting)).length > 0;
}

// How a command ends sessions, each of another user.
const operations: readonly [string, Username, (parts: AccountParts) => Promise<unknown>][] = [
  ['a new password', 'ada', ({ accounts }) => accounts.setPassword('ada', 'a new long password')],
  ['disabling', 'bob', ({ accounts }) => accounts.disable('bob')],
  ['deletion', 'cyd', ({ accounts }) => accounts.delete('cyd')],
];

for (const dialect of ['sqlite', 'postgres', 'mariadb', 'mysql'] as const) {
  const skip = await skipFor(dialect);

  test(`${dialect}: no event follows the end of what it would reach`, { skip }, async (t) => {
    const scenario = await (dialect === 'sqlite' ? startEmbedded(t) : startTwo(t, dialect));
    const { one, two } = scenario;

    await t.test('an API key revoked while its body is open publishes nothing more', async () => {
      const { stream } = await openStreamElsewhere(scenario);
      const { key } = await scenario.runAdmin(({ apiKeys }) =>
        apiKeys.create({ name: 'billing', scopes: ['publish'] }),
      );
      recordSecret(key);
      const lines = new PassThrough();
      const headers = { 'content-type': 'application/x-ndjson' };
      const answering = one.ask('POST', '/events', { bearer: key, headers, body: lines });
      const write = (data: string) => {
        // As many as are published together.
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

    await t.test('a volatile event does not reach a stream that has ended', async () => {
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
