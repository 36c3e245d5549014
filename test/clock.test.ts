import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { H2Client, Login } from './support/clients/h2-client.js';
import { collectingLog } from './support/recording/collecting-log.js';
import { waitForLogLine } from './support/recording/wait-for-log.js';
import { startSystem } from './support/servers/system.js';

const hour = 3_600_000;

async function startScenario(t: TestContext) {
  const time = { now: Date.now() };
  const system = await startSystem(t, { wallClock: () => time.now });
  return { time, system, client: await system.connect() };
}

/** Returns the statuses of `/me`, `/token` and `/stream/token` for the tokens of a login. */
async function getStatuses(client: H2Client, { accessToken, refreshToken }: Login) {
  const json = { token: refreshToken };
  const me = await client.ask('GET', '/me', { bearer: accessToken });
  const renewed = await client.ask('POST', '/token', { json });
  const stream = await client.ask('POST', '/stream/token', { bearer: accessToken });
  return [me.status, renewed.status, stream.status];
}

for (const backSeconds of [2, 60, 7200]) {
  test(`a clock that steps back by ${backSeconds} s invalidates no token`, async (t) => {
    const { time, client } = await startScenario(t);
    const earlierLogin = await client.login('ada');
    const path = await client.streamPath('ada');

    time.now -= backSeconds * 1000;

    assert.deepEqual(await getStatuses(client, earlierLogin), [200, 200, 200]);
    assert.deepEqual(
      await getStatuses(client, earlierLogin),
      [200, 200, 200],
      'a second time, within the grace period of the refresh token',
    );
    await (await client.openStream(path)).opening();
  });
}

test('a global logout and the login after it stay in effect when the clock steps back', async (t) => {
  const { time, client } = await startScenario(t);
  const earlierLogin = await client.login('ada');
  const json = { scope: 'all' };
  await client.ask('POST', '/logout', { bearer: earlierLogin.accessToken, json });

  time.now -= 2000;
  const laterLogin = await client.login('ada');

  assert.deepEqual(await getStatuses(client, earlierLogin), [401, 401, 401]);
  assert.deepEqual(await getStatuses(client, laterLogin), [200, 200, 200]);
});

test('a login is valid at once after a global logout by a clock that was two hours ahead', async (t) => {
  const { time, client } = await startScenario(t);
  time.now += 2 * hour;
  const earlierLogin = await client.login('ada');
  const json = { scope: 'all' };
  await client.ask('POST', '/logout', { bearer: earlierLogin.accessToken, json });

  time.now -= 2 * hour;
  const laterLogin = await client.login('ada');

  assert.deepEqual(await getStatuses(client, earlierLogin), [401, 401, 401]);
  assert.deepEqual(await getStatuses(client, laterLogin), [200, 200, 200]);
});

test('access tokens but no sessions expire when the clock jumps an hour ahead', async (t) => {
  const { time, client } = await startScenario(t);
  const earlierLogin = await client.login('ada');
  const path = await client.streamPath('ada');
  const stream = await client.openStream(path);
  await stream.opening();

  time.now += hour + 5000;

  assert.deepEqual(await getStatuses(client, earlierLogin), [401, 200, 401]);
  stream.abort();
  const reopened = await client.openStream(path);
  await reopened.opening();
});

test('a clock that is set during a request does not change its logged duration', async (t) => {
  let now = Date.now();
  const wallClock = () => {
    now += hour;
    return now;
  };
  const lines: Record<string, unknown>[] = [];
  const system = await startSystem(t, { wallClock, log: collectingLog(lines) });
  const client = await system.connect();

  await client.ask('GET', '/health/live');
  await waitForLogLine(lines, { phrase: 'request', route: '/health/live' });

  const ms = Number(lines.find(({ route }) => route === '/health/live')?.['ms']);
  assert.ok(ms < hour, `${ms}`);
});
