import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { withDatabase } from '../src/commands/database.js';
import { loadConfig } from '../src/config/config.js';
import { sql } from '../src/db/database.js';
import type { H2Client, H2Stream, Login } from './support/clients/h2-client.js';
import { collectingLog } from './support/recording/collecting-log.js';
import { recordedLog } from './support/recording/record.js';
import { runSource } from './support/servers/process.js';
import { getPassword, type Username } from './support/servers/seed.js';
import { type System, type SystemOptions, startSystem } from './support/servers/system.js';
import { until } from './support/until.js';

/** A login and its open stream. */
interface LoggedInDevice extends Login {
  readonly stream: H2Stream;
}

async function startScenario(t: TestContext, options: SystemOptions = {}) {
  const lines: Record<string, unknown>[] = [];
  const system = await startSystem(t, { log: collectingLog(lines), ...options });
  return { system, lines, client: await system.connect() };
}

/** Returns why streams were closed before the last response of a route. */
function getCloseReasonsBefore(
  lines: readonly Record<string, unknown>[],
  route: string,
): unknown[] {
  const end = lines.findLastIndex(
    (line) => line['phrase'] === 'request' && line['route'] === route,
  );
  assert.ok(end >= 0);
  const closed = lines.slice(0, end).filter(({ phrase }) => phrase === 'stream closed');
  return closed.map(({ reason }) => reason);
}

async function mintStreamToken(client: H2Client, { accessToken }: Login): Promise<string> {
  const { status, body } = await client.ask('POST', '/stream/token', { bearer: accessToken });
  assert.equal(status, 200);
  return String(body['streamToken']);
}

async function logInDevice(client: H2Client, username: Username): Promise<LoggedInDevice> {
  const login = await client.login(username);
  const stream = await client.openStream(`/stream/live/${await mintStreamToken(client, login)}`);
  await stream.opening();
  return { ...login, stream };
}

/** Returns whether the tokens of a login are accepted; asserts that all routes agree. */
async function isUsable(client: H2Client, { accessToken, refreshToken }: Login): Promise<boolean> {
  const json = { token: refreshToken };
  const answers = await Promise.all([
    client.ask('GET', '/me', { bearer: accessToken }),
    client.ask('POST', '/stream/token', { bearer: accessToken }),
    client.ask('POST', '/token', { json }),
  ]);
  const statuses = new Set(answers.map(({ status }) => status));
  assert.ok(statuses.size === 1 && (statuses.has(200) || statuses.has(401)), `${[...statuses]}`);
  return statuses.has(200);
}

const scopes = [
  ['session', [false, true, true]],
  ['others', [true, false, true]],
  ['all', [false, false, true]],
] as const;

for (const [scope, alive] of scopes) {
  test(`logout with scope ${scope} ends the streams and tokens of exactly those sessions`, async (t) => {
    const { client, lines } = await startScenario(t);
    const devices = [
      await logInDevice(client, 'ada'),
      await logInDevice(client, 'ada'),
      await logInDevice(client, 'bob'),
    ];
    const [mine] = devices as [LoggedInDevice];

    const answer = await client.ask('POST', '/logout', {
      bearer: mine.accessToken,
      json: { scope },
    });

    assert.equal(answer.status, 204);
    const ended = alive.filter((isAlive) => !isAlive);
    assert.deepEqual(
      getCloseReasonsBefore(lines, '/logout'),
      ended.map(() => 'revoked'),
    );
    for (const [index, device] of devices.entries()) {
      if (alive[index] === true) continue;
      assert.deepEqual(await device.stream.closing(), { code: 'revoked', reconnect: false });
    }
    const lives = await Promise.all(devices.map((device) => isUsable(client, device)));
    assert.deepEqual(lives, alive);
    assert.deepEqual(
      devices.map(({ stream }) => !stream.isEnded),
      alive,
    );
  });
}

test('a refresh token reused after its grace period ends its session and its streams', async (t) => {
  let now = Date.now();
  const { client, lines } = await startScenario(t, { wallClock: () => now });
  const stolen = await logInDevice(client, 'ada');
  const other = await logInDevice(client, 'ada');
  const json = { token: stolen.refreshToken };
  const renewed = await client.ask('POST', '/token', { json });
  now += 11_000;

  const again = await client.ask('POST', '/token', { json });

  assert.equal(again.status, 401);
  assert.deepEqual(getCloseReasonsBefore(lines, '/token'), ['revoked']);
  assert.deepEqual(await stolen.stream.closing(), { code: 'revoked', reconnect: false });
  assert.equal(await isUsable(client, renewed.body as unknown as Login), false);
  assert.equal(await isUsable(client, other), true);
  assert.equal(other.stream.isEnded, false);
});

test('a logout deletes the stream tokens of its session', async (t) => {
  const { system, client } = await startScenario(t);
  const [mine, other] = [await client.login('ada'), await client.login('ada')];
  for (const login of [mine, mine, other]) await mintStreamToken(client, login);
  const left = () =>
    withDatabase(loadConfig(system.env), recordedLog, (db) =>
      db.query(sql`select token_hash from stream_tokens`),
    );
  assert.equal((await left()).length, 3);

  await client.ask('POST', '/logout', { bearer: mine.accessToken });

  await until(async () => (await left()).length === 1);
});

test('a login over MAX_SESSIONS_PER_USER ends the oldest session and its stream', async (t) => {
  const { client } = await startScenario(t, { env: { MAX_SESSIONS_PER_USER: '2' } });
  const first = await logInDevice(client, 'ada');
  const second = await logInDevice(client, 'ada');

  await client.login('ada');

  assert.deepEqual(await first.stream.closing(), { code: 'revoked', reconnect: false });
  assert.equal(await isUsable(client, first), false);
  assert.equal(await isUsable(client, second), true);
});

// Operations outside of the server process: the command itself, or the functions that it calls.
const operations = {
  'npm run user -- passwd': async ({ env, folder: cwd }: System) => {
    const input = 'another long password';
    const { code, err } = await runSource('commands/user.ts', ['passwd', 'ada'], {
      cwd,
      env,
      input,
    });
    assert.equal(code, 0, err);
  },
  'disabling a user': (system: System) =>
    system.runAdmin(({ accounts }) => accounts.disable('ada')),
  'deleting a user': (system: System) => system.runAdmin(({ accounts }) => accounts.delete('ada')),
};

for (const [what, run] of Object.entries(operations)) {
  test(`${what} ends tokens at once and open streams soon after`, async (t) => {
    const { system, client } = await startScenario(t);
    const devices = [await logInDevice(client, 'ada'), await logInDevice(client, 'ada')];
    const other = await logInDevice(client, 'bob');
    const unopened = await mintStreamToken(client, devices[0] as LoggedInDevice);

    await run(system);

    for (const device of devices) assert.equal(await isUsable(client, device), false);
    const late = await client.openStream(`/stream/live/${unopened}`);
    assert.equal(late.status, 401);
    for (const { stream } of devices) {
      assert.deepEqual(await stream.closing(), { code: 'revoked', reconnect: false });
    }
    const json = { username: 'ada', password: getPassword('ada') };
    assert.equal((await client.ask('POST', '/login', { json })).status, 401);
    assert.equal(other.stream.isEnded, false);
    assert.equal(await isUsable(client, other), true);
  });
}

/** Sends two requests concurrently; the round determines which is first and by how much. */
async function race<First, Second>(
  round: number,
  first: () => Promise<First>,
  second: () => Promise<Second>,
): Promise<[First, Second]> {
  const turns = Math.floor(round / 2) % 12;
  const later = async <Result>(start: () => Promise<Result>) => {
    for (let turn = 0; turn < turns; turn += 1) await new Promise(setImmediate);
    return start();
  };
  if (round % 2 === 0) return Promise.all([first(), later(second)]);
  const [second_, first_] = await Promise.all([second(), later(first)]);
  return [first_, second_];
}

for (const scope of ['session', 'all'] as const) {
  test(`no token outlives the 204 of a logout (${scope}) that races a refresh, 100 times`, async (t) => {
    const { client } = await startScenario(t);
    let renewals = 0;
    for (let round = 0; round < 100; round += 1) {
      const login = await client.login('ada');
      const json = { token: login.refreshToken };

      const [refreshed, loggedOut] = await race(
        round,
        () => client.ask('POST', '/token', { json }),
        () => client.ask('POST', '/logout', { bearer: login.accessToken, json: { scope } }),
      );

      assert.equal(loggedOut.status, 204);
      assert.equal(await isUsable(client, login), false);
      if (refreshed.status === 200) renewals += 1;
      else assert.equal(refreshed.status, 401);
      if (refreshed.status !== 200) continue;
      assert.equal(await isUsable(client, refreshed.body as unknown as Login), false);
    }
    t.diagnostic(`${renewals} of 100 refreshes came before their logout`);
  });
}

test('no stream opened during a logout outlives it (100 races)', async (t) => {
  const { client } = await startScenario(t);
  let opened = 0;
  for (let round = 0; round < 100; round += 1) {
    const login = await client.login('ada');
    const path = `/stream/live/${await mintStreamToken(client, login)}`;

    const [stream, loggedOut] = await race(
      round,
      () => client.openStream(path),
      () => client.ask('POST', '/logout', { bearer: login.accessToken }),
    );

    assert.equal(loggedOut.status, 204);
    if (stream.status === 200) opened += 1;
    else assert.equal(stream.status, 401);
    await stream.ended(); // Never resolves for a stream that outlives the logout.
    assert.equal((await client.openStream(path)).status, 401);
  }
  t.diagnostic(`${opened} of 100 streams opened before their logout completed`);
});
