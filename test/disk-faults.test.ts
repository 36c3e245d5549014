import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { copyFileSync, existsSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { withAccounts } from '../src/commands/accounts.js';
import { loadConfig } from '../src/config/config.js';
import { loadSqlite } from '../src/db/sqlite/load.js';
import { H2Client } from './support/clients/h2-client.js';
import { createDedicatedServer } from './support/databases/dedicated-server.js';
import { mountDisk, tryRun } from './support/mounted-disk.js';
import { collectingLog } from './support/recording/collecting-log.js';
import { recordSecret } from './support/recording/record.js';
import { clusterOn } from './support/servers/cluster.js';
import { type LogLine, launch } from './support/servers/launch.js';
import { prepare } from './support/servers/seed.js';
import { until } from './support/until.js';

/** Starts Herald as a child process whose database is in `folder`, with an open stream of ada. */
async function startHerald(t: TestContext, folder?: string) {
  const { env: preparedEnv, apiKey, folder: seedFolder } = await prepare();
  t.after(() => rmSync(seedFolder, { recursive: true, force: true }));
  const file = join(folder ?? seedFolder, 'herald.db');
  for (const suffix of ['', '-wal']) {
    const seed = join(seedFolder, `herald.db${suffix}`);
    if (folder !== undefined && existsSync(seed)) copyFileSync(seed, file + suffix);
  }
  const env = { ...preparedEnv, DB_STORAGE: file, STREAM_HEARTBEAT: '1000' };
  const { key: metricsKey } = await withAccounts(loadConfig(env), ({ apiKeys }) =>
    apiKeys.create({ name: 'metrics', scopes: ['metrics'] }),
  );
  recordSecret(metricsKey);
  const lines: LogLine[] = [];
  const server = await launch({ env, cwd: seedFolder, onLine: (line) => lines.push(line) });
  t.after(() => server.end('SIGKILL'));
  const client = await H2Client.connect(server.url);
  t.after(() => client.destroy());
  const stream = await client.listen('ada');
  const ids: string[] = [];

  return {
    ...{ client, stream, file },
    /** Publishes an event and returns the status. */
    async publish(data = 'x'.repeat(30_000)) {
      const json = { to: 'all', data };
      const { status, body } = await client.ask('POST', '/events', { bearer: apiKey, json });
      if (status === 201) ids.push(String(body['id']));
      return status;
    },
    /** Publishes events of this many bytes in one request. */
    async publishMany(count: number, bytes: number) {
      const json = Array(count).fill({ to: 'all', data: 'x'.repeat(bytes), volatile: false });
      const { status, text } = await client.ask('POST', '/events', { bearer: apiKey, json });
      assert.equal(status, 201, text);
    },
    /** Settles when `/health/ready` answers this status, database state and reason. */
    waitForReadiness: (status: number, state: string, reason?: string) =>
      until(async () => {
        const answer = await client.ask('GET', '/health/ready');
        const { checks, reasons } = answer.body as Record<string, Record<string, unknown>>;
        const found = [answer.status, checks?.['database'], reasons?.['database']];
        return found.every((value, index) => value === [status, state, reason][index]);
      }),
    async metric(name: string) {
      const { text } = await client.ask('GET', '/metrics', { bearer: metricsKey });
      const line = text.split('\n').find((one) => one.startsWith(`${name} `));
      return Number(line?.split(' ')[1]);
    },
    /** Returns level and reason of the lines with this message. */
    logged: (message: string) =>
      lines
        .filter(({ msg }) => msg === message)
        .map(({ level, reason, reasons }) => [level, reason ?? reasons]),
    /** Settles when a line has this message; lines arrive later than responses. */
    waitForLine: (message: string) => until(() => lines.some(({ msg }) => msg === message)),
    /** Asserts that the stream is open and has received every event that was acknowledged, in order. */
    async assertNoLoss() {
      await stream.until(() => stream.ids.includes(ids.at(-1) ?? '') || undefined);
      assert.deepEqual(
        stream.ids.filter((id) => ids.includes(id)),
        ids,
      );
      assert.equal(stream.isEnded, false);
    },
  };
}

type Herald = Awaited<ReturnType<typeof startHerald>>;

/** Asserts that the outage was logged when it began and ended, and counted, and that Herald works again. */
async function assertEnded(herald: Herald, reason: string) {
  await herald.waitForReadiness(200, 'ok');
  assert.equal(await herald.publish(), 201);
  await herald.assertNoLoss();
  await herald.waitForLine('database available again');
  assert.deepEqual(herald.logged('database unavailable'), [['warn', reason]]);
  assert.deepEqual(herald.logged('database available again'), [['info', [reason]]]);
  const count = await herald.metric(`herald_database_failures_total{reason="${reason}"}`);
  assert.ok(count > 0, String(count));
}

// Each test has its own process and disk. They mostly wait, so they run at the same time.
describe('disks of the embedded database', { concurrency: true }, () => {
  test('sqlite: a full disk is reported until space is freed', async (t) => {
    const disk = mountDisk(t, 16);
    if (typeof disk === 'string') return t.skip(disk);
    const herald = await startHerald(t, disk.path);
    assert.equal(await herald.publish(), 201);
    const ballast = join(disk.path, 'ballast');
    writeFileSync(ballast, Buffer.alloc(6 * 1024 * 1024));

    await until(async () => (await herald.publish()) === 503);
    await herald.waitForReadiness(503, 'failing', 'disk_full');
    rmSync(ballast);

    await assertEnded(herald, 'disk_full');
  });

  test('sqlite: a read-only database file is reported until it is writable again', async (t) => {
    const disk = mountDisk(t, 64);
    if (typeof disk === 'string') return t.skip(disk);
    const herald = await startHerald(t, disk.path);
    assert.equal(await herald.publish(), 201);
    const wal = `${herald.file}-wal`;
    // A file system cannot be remounted read-only while a file is open for writing, but a file can be immutable.
    if (!tryRun('chattr', '+i', wal)) return t.skip('chattr does not work');
    t.after(() => tryRun('chattr', '-i', wal));

    await until(async () => (await herald.publish()) === 503);
    await herald.waitForReadiness(503, 'failing', 'read_only');
    tryRun('chattr', '-i', wal);

    await assertEnded(herald, 'read_only');
  });

  test('sqlite: a frozen disk stops neither streams nor health checks, and is reported until it is thawed', async (t) => {
    const disk = mountDisk(t, 64);
    if (typeof disk === 'string') return t.skip(disk);
    const herald = await startHerald(t, disk.path);
    const { client, stream } = herald;
    assert.equal(await herald.publish(), 201);
    const bearer = await client.accessToken('ada');
    if (!tryRun('fsfreeze', '-f', disk.path)) return t.skip('fsfreeze does not work');

    const statuses: number[] = [];
    void herald.publish().then((status) => statuses.push(status));
    void client.ask('GET', '/me', { bearer }).then(({ status }) => statuses.push(status));
    await herald.waitForReadiness(503, 'failing', 'timeout');
    assert.deepEqual(herald.logged('database unavailable'), []); // The write still has time until its deadline.
    const { comments } = stream;
    await stream.until(() => stream.comments > comments + 2 || undefined);
    assert.equal((await client.ask('GET', '/health/live')).status, 200);
    await until(() => statuses.length === 2);
    assert.deepEqual(statuses, [503, 503]);
    tryRun('fsfreeze', '-u', disk.path);

    await assertEnded(herald, 'timeout');
  });

  test('sqlite: a write-ahead log that a long reader keeps large is reported until the reader ends', async (t) => {
    const herald = await startHerald(t);
    const Driver = await loadSqlite();
    const reader = new Driver(herald.file, { readOnly: true });
    t.after(() => reader.close());
    reader.exec('begin');
    reader.prepare('select count(*) from events').all();

    for (let request = 0; request < 20; request += 1) await herald.publishMany(120, 60_000);
    await herald.waitForReadiness(200, 'degraded', 'wal_large');
    const large = await herald.metric('herald_database_wal_bytes');
    reader.exec('rollback');
    await until(async () => {
      await herald.publish();
      return (await herald.metric('herald_database_wal_bytes')) < large;
    });

    await herald.waitForReadiness(200, 'ok');
    await herald.assertNoLoss();
    await herald.waitForLine('write-ahead log was reset');
    assert.deepEqual(herald.logged('write-ahead log cannot be reset'), [['warn', undefined]]);
    assert.deepEqual(herald.logged('write-ahead log was reset'), [['info', undefined]]);
  });
});

const postgres = await createDedicatedServer('postgres');

test('postgres: a full disk of the database server is reported until space is freed', {
  skip: typeof postgres === 'string' ? postgres : false,
}, async (t) => {
  if (typeof postgres === 'string') return;
  const disk = mountDisk(t, 64);
  if (typeof disk === 'string') {
    await postgres.remove();
    return t.skip(disk);
  }
  execFileSync('chown', ['postgres', disk.path]);
  execFileSync('chmod', ['755', dirname(disk.path)]);
  await postgres.start();
  const cluster = await clusterOn(t, postgres);
  t.after(() => postgres.remove());
  // Only the tables are on the small disk, because PostgreSQL does not survive a full disk of its own log.
  await cluster.administer(`create tablespace small location '${disk.path}'`);
  await cluster.administer(`alter database ${cluster.env['DB_NAME']} set tablespace small`);
  const lines: Record<string, unknown>[] = [];
  const app = await cluster.start({}, { log: collectingLog(lines) });
  const client = await H2Client.connect(`https://127.0.0.1:${app.port}`);
  t.after(() => client.destroy());
  const json = { to: 'all', data: randomBytes(22_500).toString('base64') }; // Not compressible.
  const publish = async () =>
    (await client.ask('POST', '/events', { bearer: cluster.apiKey, json })).status;
  const isNamed = async (reason?: string) => {
    const { status, body } = await client.ask('GET', '/health/ready');
    const { database } = (body['reasons'] ?? {}) as { database?: string };
    return status === (reason === undefined ? 200 : 503) && database === reason;
  };
  const ballast = join(disk.path, 'ballast');
  writeFileSync(ballast, Buffer.alloc(40 * 1024 * 1024));

  await until(async () => (await publish()) === 503);
  await until(() => isNamed('disk_full'));
  rmSync(ballast);
  await until(() => isNamed());

  assert.equal(await publish(), 201);
  const phrases = lines.map(({ phrase }) => phrase);
  assert.equal(phrases.filter((phrase) => phrase === 'database unavailable').length, 1);
  assert.equal(phrases.filter((phrase) => phrase === 'database available again').length, 1);
});
