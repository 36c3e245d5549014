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

/** Returns the close reasons of all streams that ended before the last response of a route. */
function getCloseReasonsBefore(
  lines: readonly Record<string, unknown>[],
  route: string,
): unknown[] {
  const responseIndex = lines.findLastIndex(
    (line) => line['phrase'] === 'request' && line['route'] === route,
  );
  assert.ok(responseIndex >= 0);
  const closed = lines.slice(0, responseIndex).filter(({ phrase }) => phrase === 'stream closed');
  return closed.map(({ reason }) => reason);
}

async function createStreamToken(client: H2Client, { accessToken }: Login): Promise<string> {
  const { status, body } = await client.ask('POST', '/stream/token', { bearer: accessToken });
  assert.equal(status, 200);
  return String(body['streamToken']);
}

async function logInDevice(client: H2Client, username: Username): Promise<LoggedInDevice> {
  const login = await client.login(username);
  const stream = await client.openStream(`/stream/live/${await createStreamToken(client, login)}`);
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

// [scope, whether these sessions stay alive: the caller's, another one of ada, one of bob]
const scopes = [
  ['session', [false, true, true]],
  ['others', [true, false, true]],
  ['all', [false, false, true]],
] as const;

for (const [scope, alive] of scopes) {
  test(`logout with scope ${scope} ends the streams and tokens of exactly the sessions in this scope`, async (t) => {
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
    const areUsable = await Promise.all(devices.map((device) => isUsable(client, device)));
    assert.deepEqual(areUsable, alive);
    assert.deepEqual(
      devices.map(({ stream }) => !stream.isEnded),
      alive,
    );
  });
}

test('reuse of a refresh token after its grace period ends its session and streams', async (t) => {
  let now = Date.now();
  const { client, lines } = await startScenario(t, { wallClock: () => now });
  const stolen = await logInDevice(client, 'ada');
  const other = await logInDevice(client, 'ada');
  const json = { token: stolen.refreshToken };
  const renewed = await client.ask('POST', '/token', { json });
  now += 11_000;

  const reused = await client.ask('POST', '/token', { json });

  assert.equal(reused.status, 401);
  assert.deepEqual(getCloseReasonsBefore(lines, '/token'), ['revoked']);
  assert.deepEqual(await stolen.stream.closing(), { code: 'revoked', reconnect: false });
  assert.equal(await isUsable(client, renewed.body as unknown as Login), false);
  assert.equal(await isUsable(client, other), true);
  assert.equal(other.stream.isEnded, false);
});

test('a logout deletes the stream tokens of its session', async (t) => {
  const { system, client } = await startScenario(t);
  const [mine, other] = [await client.login('ada'), await client.login('ada')];
  for (const login of [mine, mine, other]) await createStreamToken(client, login);
  const readTokens = () =>
    withDatabase(loadConfig(system.env), recordedLog, (db) =>
      db.query(sql`select token_hash from stream_tokens`),
    );
  assert.equal((await readTokens()).length, 3);

  await client.ask('POST', '/logout', { bearer: mine.accessToken });

  await until(async () => (await readTokens()).length === 1);
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

// Operations outside the server process: a command, or the functions that a command calls.
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

for (const [what, runOperation] of Object.entries(operations)) {
  test(`${what} invalidates tokens at once and ends open streams soon after`, async (t) => {
    const { system, client } = await startScenario(t);
    const devices = [await logInDevice(client, 'ada'), await logInDevice(client, 'ada')];
    const other = await logInDevice(client, 'bob');
    const unopened = await createStreamToken(client, devices[0] as LoggedInDevice);

    await runOperation(system);

    for (const device of devices) assert.equal(await isUsable(client, device), false);
    const refused = await client.openStream(`/stream/live/${unopened}`);
    assert.equal(refused.status, 401);
    for (const { stream } of devices) {
      assert.deepEqual(await stream.closing(), { code: 'revoked', reconnect: false });
    }
    const json = { username: 'ada', password: getPassword('ada') };
    assert.equal((await client.ask('POST', '/login', { json })).status, 401);
    assert.equal(other.stream.isEnded, false);
    assert.equal(await isUsable(client, other), true);
  });
}

/** Sends two requests concurrently; `round` determines which is sent first, and how many turns earlier. */
async function race<First, Second>(
  round: number,
  first: () => Promise<First>,
  second: () => Promise<Second>,
): Promise<[First, Second]> {
  const turns = Math.floor(round / 2) % 12;
  const startLater = async <Result>(start: () => Promise<Result>) => {
    for (let turn = 0; turn < turns; turn += 1) await new Promise(setImmediate);
    return start();
  };
  if (round % 2 === 0) return Promise.all([first(), startLater(second)]);
  const [secondResult, firstResult] = await Promise.all([second(), startLater(first)]);
  return [firstResult, secondResult];
}

for (const scope of ['session', 'all'] as const) {
  test(`no token is valid after a logout (${scope}) that races a refresh (100 races)`, async (t) => {
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

test('no stream opened during a logout stays open after the logout (100 races)', async (t) => {
  const { client } = await startScenario(t);
  let opened = 0;
  for (let round = 0; round < 100; round += 1) {
    const login = await client.login('ada');
    const path = `/stream/live/${await createStreamToken(client, login)}`;

    const [stream, loggedOut] = await race(
      round,
      () => client.openStream(path),
      () => client.ask('POST', '/logout', { bearer: login.accessToken }),
    );

    assert.equal(loggedOut.status, 204);
    if (stream.status === 200) opened += 1;
    else assert.equal(stream.status, 401);
    await stream.ended(); // Never resolves for a stream that stays open.
    assert.equal((await client.openStream(path)).status, 401);
  }
  t.diagnostic(`${opened} of 100 streams opened before their logout completed`);
});
