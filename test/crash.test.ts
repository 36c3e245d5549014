import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { H2Client } from './support/clients/h2-client.js';
import { allDialects } from './support/databases/dialects.js';
import { findServer } from './support/databases/test-server.js';
import { freePort } from './support/free-port.js';
import { clusterFor } from './support/servers/cluster.js';
import { launch, type ServerHandle } from './support/servers/launch.js';
import { type Env, prepare } from './support/servers/seed.js';
import { until } from './support/until.js';

/** Settings of a process on a database with accounts, an API key for publishing, and the started processes. */
interface ServerSetup {
  readonly env: Env;
  readonly apiKey: string;
  readonly processes: ServerHandle[];
}

async function createSetup(
  t: TestContext,
  dialect: (typeof allDialects)[number],
): Promise<ServerSetup> {
  const processes: ServerHandle[] = [];
  t.after(() => Promise.all(processes.map((child) => child.end('SIGKILL')))); // Runs before their files are removed.
  const port = String(await freePort());
  if (dialect === 'sqlite') {
    const { env, apiKey, folder } = await prepare({ PORT: port });
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    return { env, apiKey, processes };
  }
  const { env, apiKey } = await clusterFor(t, dialect);
  return { env: { ...env, PORT: port }, apiKey, processes };
}

/** Starts a server process and waits until it listens. The process is killed after the test. */
async function startHerald(
  { env, processes }: ServerSetup,
  wrapper: string[] = [],
): Promise<ServerHandle> {
  const launched = await launch({ env, cwd: env['DATA_DIR'] ?? '', wrapper });
  processes.push(launched);
  return launched;
}

async function connectTo({ env }: ServerSetup, t: TestContext): Promise<H2Client> {
  const client = await H2Client.connect(`https://127.0.0.1:${env['PORT']}`);
  t.after(() => client.destroy());
  return client;
}

/** Resumes a stream after `lastEventId` and returns its events up to the one with `lastId`. */
async function replay(
  t: TestContext,
  setup: ServerSetup,
  { lastEventId, lastId }: { lastEventId: string; lastId: string },
) {
  const client = await connectTo(setup, t);
  const headers = { 'last-event-id': lastEventId };
  const stream = await client.listenAs(await client.accessToken('ada'), headers);
  await stream.until(() => stream.ids.includes(lastId) || undefined);
  assert.equal(JSON.parse(stream.events[0]?.data ?? '{}').resumed, true);
  return stream.events.filter(({ id, type }) => id !== undefined && type !== 'stream.open');
}

for (const dialect of allDialects) {
  const server = dialect === 'sqlite' ? undefined : await findServer(dialect);

  test(`${dialect}: kill -9 while 64 clients publish loses no acknowledged event`, {
    skip: typeof server === 'string' ? server : false,
  }, async (t) => {
    const setup = await createSetup(t, dialect);
    const child = await startHerald(setup);
    const backend = await connectTo(setup, t);
    const { apiKey: bearer } = setup;
    const acknowledged = new Map<string, string>();
    const publish = async (publisher: number): Promise<void> => {
      for (let number = 0; ; number += 1) {
        const data = `${publisher}-${number}`;
        const answer = await backend.ask('POST', '/events', { bearer, json: { to: 'all', data } });
        assert.equal(answer.status, 201);
        acknowledged.set(String(answer.body['id']), data);
      }
    };
    const publishing = Array.from({ length: 64 }, (_, publisher) => publish(publisher));
    const publishersEnded = Promise.allSettled(publishing);
    await Promise.race([Promise.all(publishing), until(() => acknowledged.size >= 500)]);

    await child.end('SIGKILL');
    await publishersEnded;
    await startHerald(setup);

    const ids = [...acknowledged.keys()].sort((a, b) => getSeq(a) - getSeq(b));
    const [lastEventId = '', lastId = ''] = [ids[0], ids.at(-1)];
    const events = await replay(t, setup, { lastEventId, lastId });
    const seqs = events.map(({ id }) => getSeq(id ?? ''));
    assert.deepEqual(
      seqs,
      seqs.map((_, index) => getSeq(lastEventId) + 1 + index),
      'out of order or with a gap',
    );
    const stored = new Map(events.map(({ id, data }) => [id, data]));
    for (const id of ids.slice(1)) assert.equal(stored.get(id), acknowledged.get(id), id);
  });
}

const getSeq = (id: string): number => Number(id.split('-')[1]);

/** Publishes until writes are refused; asserts that they succeed after `makeRoom`. Returns the event ids. */
async function assertRecovers(t: TestContext, setup: ServerSetup, makeRoom: () => void) {
  const backend = await connectTo(setup, t);
  const stream = await backend.listenAs(await backend.accessToken('ada'));
  const data = 'x'.repeat(30_000);
  const publish = () =>
    backend.ask('POST', '/events', { bearer: setup.apiKey, json: { to: 'all', data } });
  const ids: string[] = [];
  let answer = await publish();
  await until(async () => {
    if (answer.status !== 201) return true;
    ids.push(String(answer.body['id']));
    answer = await publish();
    return false;
  });
  assert.equal(answer.status, 503, JSON.stringify(answer.body));
  assert.match(answer.headers['retry-after'] ?? '', /^[1-9]\d*$/);
  assert.equal((await publish()).status, 503);
  const getReadiness = async () => (await backend.ask('GET', '/health/ready')).status;
  await until(async () => (await getReadiness()) === 503);
  for (let check = 0; check < 20; check += 1) assert.equal(await getReadiness(), 503);
  assert.equal((await backend.ask('GET', '/health/live')).status, 200);

  makeRoom();
  await until(async () => (await getReadiness()) === 200);
  const countBefore = ids.length;
  await until(async () => {
    const { status, body } = await publish();
    if (status === 201) ids.push(String(body['id']));
    return ids.length === countBefore + 5;
  });

  assert.ok(ids.length > 10);
  await stream.until(() => stream.ids.includes(ids.at(-1) ?? '') || undefined);
  assert.deepEqual(
    stream.events.filter(({ type }) => type !== 'stream.open').flatMap(({ id }) => id ?? []),
    ids,
  );
  return ids;
}

const skipLimit =
  spawnSync('prlimit', ['--version']).status === 0 ? false : 'prlimit is not installed';

test('sqlite: publishes are refused at the file size limit until the limit is raised', {
  skip: skipLimit,
}, async (t) => {
  const setup = await createSetup(t, 'sqlite');
  // SIGXFSZ would end the process; when the signal is ignored, the write fails instead.
  const limitScript = 'trap "" XFSZ; ulimit -S -f 4096; exec "$0" "$@"'; // 4096 KiB.
  const child = await startHerald(setup, ['bash', '-c', limitScript]);

  const ids = await assertRecovers(t, setup, () => {
    execFileSync('prlimit', ['--pid', String(child.pid), '--fsize=unlimited']);
  });

  await child.end('SIGKILL');
  await startHerald(setup);
  const [lastEventId = '', lastId = ''] = [ids[0], ids.at(-1)];
  const events = await replay(t, setup, { lastEventId, lastId });
  assert.deepEqual(
    events.map(({ id }) => id),
    ids.slice(1),
  );
});

const skipMount = (() => {
  if (process.getuid?.() !== 0) return 'only root can mount';
  return spawnSync('mount', ['--version']).status === 0 ? false : 'mount is not installed';
})();

test('sqlite: publishes are refused on a full disk until space is freed', {
  skip: skipMount,
}, async (t) => {
  const { env, ...rest } = await createSetup(t, 'sqlite');
  const disk = mkdtempSync(join(tmpdir(), 'herald-disk-'));
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', disk]);
  t.after(() => {
    if (mounted.status === 0) execFileSync('umount', ['-l', disk]); // Herald may still have it open.
    rmSync(disk, { recursive: true, force: true });
  });
  if (mounted.status !== 0) return t.skip('not allowed to mount');
  const ballast = join(disk, 'ballast');
  writeFileSync(ballast, Buffer.alloc(4 * 1024 * 1024));
  execFileSync('cp', [join(env['DATA_DIR'] ?? '', 'herald.db'), disk]);
  const setup = { ...rest, env: { ...env, DB_STORAGE: join(disk, 'herald.db') } };
  const child = await startHerald(setup);

  const ids = await assertRecovers(t, setup, () => rmSync(ballast));

  await child.end('SIGKILL');
  await startHerald(setup);
  const [lastEventId = '', lastId = ''] = [ids[0], ids.at(-1)];
  const events = await replay(t, setup, { lastEventId, lastId });
  assert.deepEqual(
    events.map(({ id }) => id),
    ids.slice(1),
  );
});
