import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { withAccounts } from '../src/commands/accounts.js';
import { withDatabase } from '../src/commands/database.js';
import { loadConfig } from '../src/config/config.js';
import { type Database, sql } from '../src/db/database.js';
import { H2Client } from './support/clients/h2-client.js';
import { findServer, type ServerDialect } from './support/databases/test-server.js';
import { collectingLog } from './support/recording/collecting-log.js';
import { recordedLog, recordSecret } from './support/recording/record.js';
import { waitForCleanUp, waitForLogLine } from './support/recording/wait-for-log.js';
import { type Cluster, clusterFor } from './support/servers/cluster.js';
import { until } from './support/until.js';

const hour = 3_600_000;
const day = 24 * hour;
const cleanUpPhrases = ['clean-up is paused', 'cleaned up'];
const differs = 'clock differs from the database, using the database time';

const useDatabase = <Result>({ env }: Cluster, work: (db: Database) => Promise<Result>) =>
  withDatabase(loadConfig(env), recordedLog, work);

/** Counts the rows that clean-up tasks may delete. */
async function countRows(cluster: Cluster): Promise<readonly number[]> {
  const tables = [sql`sessions`, sql`stream_tokens`, sql`events`, sql`idempotency`];
  return useDatabase(cluster, async (db) => {
    const counts: number[] = [];
    for (const table of tables) counts.push((await db.query(sql`select 1 from ${table}`)).length);
    return counts;
  });
}

/** Starts a process without clean-up tasks. `startWrong` starts a process whose local clock is wrong. */
async function startScenario(t: TestContext, dialect: ServerDialect, offsetMs: number) {
  const cluster = await clusterFor(t, dialect);
  const local = { offsetMs };
  const lines: Record<string, unknown>[] = [];
  const connect = async (port: number) => {
    const client = await H2Client.connect(`https://127.0.0.1:${port}`);
    t.after(() => client.destroy());
    return client;
  };
  const right = await cluster.start({ CLEANUP_INTERVAL: String(day) });
  /** Starts the process with the wrong clock. Call it after the rows exist that it must not delete. */
  const startWrong = async () => {
    const wallClock = () => Date.now() + local.offsetMs;
    const options = { wallClock, log: collectingLog(lines) };
    return connect((await cluster.start({ CLEANUP_INTERVAL: '1000' }, options)).port);
  };
  return { cluster, local, lines, right: await connect(right.port), startWrong };
}

for (const dialect of ['postgres', 'mariadb', 'mysql'] as const) {
  const server = await findServer(dialect);
  const skip = typeof server === 'string' ? server : false;

  for (const [direction, offsetMs] of [
    ['ahead', 40 * day],
    ['behind', -40 * day],
  ] as const) {
    test(`${dialect}: a process whose clock is 40 days ${direction} works with the time of the database`, {
      skip,
    }, async (t) => {
      const scenario = await startScenario(t, dialect, offsetMs);
      const { cluster, local, lines, right, startWrong } = scenario;
      const ada = await right.login('ada');
      const publish = (client: H2Client, data: string) => {
        const headers = { 'idempotency-key': data };
        const json = { to: 'all', data };
        return client.ask('POST', '/events', { bearer: cluster.apiKey, json, headers });
      };
      await right.streamPath('bob');
      assert.equal((await publish(right, 'early')).status, 201);
      // An ended session, old enough that a process with a correct clock deletes it.
      const ended = await right.login('cyd');
      await right.ask('POST', '/logout', { bearer: ended.accessToken });
      await useDatabase(cluster, (db) =>
        db.execute(
          sql`update sessions set revoked_at = revoked_at - ${2 * day} where revoked_at is not null`,
        ),
      );
      const before = await countRows(cluster);
      const wrong = await startWrong();

      await t.test(
        'a process with a wrong clock deletes no rows, not even expired rows',
        async () => {
          await until(() => lines.some(({ phrase }) => cleanUpPhrases.includes(String(phrase))));

          assert.deepEqual(await countRows(cluster), before);
          assert.equal(lines.filter(({ phrase }) => phrase === 'clean-up is paused').length, 1);
          const warnings = lines.filter(({ phrase }) => phrase === differs);
          assert.equal(warnings.length, 1);
          assert.equal(Math.sign(Number(warnings[0]?.['offsetMs'])), Math.sign(offsetMs));
        },
      );

      await t.test(
        'a process with a wrong clock is ready, and every process accepts the tokens of the others',
        async () => {
          const login = await wrong.login('ada');
          const renewed = await wrong.ask('POST', '/token', { json: { token: ada.refreshToken } });
          const tokens = [ada.accessToken, login.accessToken, String(renewed.body['accessToken'])];
          for (const client of [right, wrong]) {
            for (const bearer of tokens) {
              assert.equal((await client.ask('GET', '/me', { bearer })).status, 200);
            }
            assert.equal((await client.ask('GET', '/health/ready')).status, 200);
          }
        },
      );

      await t.test(
        'a global logout at a process with a wrong clock ends all sessions of the user',
        async () => {
          const [first, second] = [await right.login('ada'), await wrong.login('ada')];
          const json = { scope: 'all' };

          const { status } = await wrong.ask('POST', '/logout', {
            bearer: first.accessToken,
            json,
          });
          const { accessToken: later } = await wrong.login('ada');

          assert.equal(status, 204);
          for (const client of [right, wrong]) {
            for (const { accessToken: bearer } of [first, second]) {
              assert.equal((await client.ask('GET', '/me', { bearer })).status, 401);
            }
            assert.equal((await client.ask('GET', '/me', { bearer: later })).status, 200);
          }
        },
      );

      await t.test('a process with a wrong clock stores times of the database', async () => {
        await publish(wrong, 'late');
        const stream = await wrong.listen('bob');
        await publish(right, 'last');
        await stream.until(() => stream.dataByType('message').includes('last') || undefined);

        const times = await useDatabase(cluster, (db) =>
          db.query<{ time: number }>(
            sql`select created_at as time from sessions union all
              select absolute_expires_at - ${90 * day} from sessions union all
              select expires_at - ${day} from idempotency union all
              select created_at from stream_tokens union all
              select created_at from events`,
          ),
        );
        assert.ok(times.length > 10);
        for (const { time } of times) assert.ok(Math.abs(time - Date.now()) < hour, `${time}`);
      });

      await t.test('a process with a wrong clock reports the offset of its clock', async () => {
        const { key } = await withAccounts(loadConfig(cluster.env), ({ apiKeys }) =>
          apiKeys.create({ name: 'prometheus', scopes: ['metrics'] }),
        );
        recordSecret(key);

        const { text } = await wrong.ask('GET', '/metrics', { bearer: key });

        const [, seconds] = /^herald_clock_offset_seconds (\S+)$/m.exec(text) ?? [];
        assert.ok(Math.abs(Number(seconds) * 1000 - offsetMs) < hour, seconds);
      });

      await t.test('a process deletes expired rows after its clock is corrected', async () => {
        local.offsetMs = 0;

        await waitForLogLine(lines, { phrase: 'clock agrees with the database again' });
        await waitForCleanUp(lines, 'sessions', 1);
      });
    });
  }
}
