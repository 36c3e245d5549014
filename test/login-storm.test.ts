import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import type { Answer } from './support/clients/exchange.js';
import type { H2Client } from './support/clients/h2-client.js';
import { collectingLog } from './support/recording/collecting-log.js';
import { getPassword } from './support/servers/seed.js';
import { type System, type SystemOptions, startSystem } from './support/servers/system.js';
import { until } from './support/until.js';

const connectionCount = 200;

/** One hashing thread with a short queue. */
const shortQueueEnv = {
  ARGON2_MEMORY_KIB: '19456',
  ARGON2_TIME: '2',
  AUTH_WORKERS: '1',
  AUTH_QUEUE_MAX: '16',
  TRUST_PROXY_HOPS: '1',
  STREAM_HEARTBEAT: '1000',
};

async function startScenario(t: TestContext, env: SystemOptions['env'] = {}) {
  const lines: Record<string, unknown>[] = [];
  const options = { env: { ...shortQueueEnv, ...env }, log: collectingLog(lines) };
  const system = await startSystem(t, options);
  return { system, lines, client: await system.connect() };
}

/** Tries to log in as an unknown user, which costs as much as any login. */
function tryUnknownUser(client: H2Client, username: string, from: string): Promise<Answer> {
  const json = { username, password: 'not the password' };
  return client.ask('POST', '/login', { json, headers: { 'x-forwarded-for': from } });
}

/**
 * Opens 200 connections that try to log in until `stop`, and collects the answers. A refused client pauses
 * for half a second, because the clients share a thread with the server and would starve it.
 */
async function startLoginStorm(system: System, from: (index: number) => string) {
  const clients: H2Client[] = [];
  while (clients.length < connectionCount) {
    // Opened in batches, because each handshake has a deadline, and all share one thread.
    clients.push(...(await Promise.all(Array.from({ length: 20 }, () => system.connect()))));
  }
  const answers: Answer[] = [];
  let isOver = false;
  const loggingIn = clients.map(async (client, index) => {
    for (let round = 0; !isOver; round += 1) {
      const answer = await tryUnknownUser(client, `nobody ${index} ${round}`, from(index));
      answers.push(answer);
      if (answer.status === 503) await pause(500);
    }
  });
  return {
    answers,
    async stop(): Promise<void> {
      isOver = true;
      await Promise.all(loggingIn);
    },
  };
}

function assertFastRefusals(answers: readonly Answer[]): void {
  const statuses = new Set(answers.map(({ status }) => status));
  assert.deepEqual([...statuses].sort(), [401, 503]);
  for (const { status, body, headers } of answers) {
    if (status === 401) continue;
    assert.equal(body['name'], 'service_unavailable');
    assert.match(headers['retry-after'] ?? '', /^[1-9]\d*$/);
  }
}

test('200 concurrent logins do not delay other requests', async (t) => {
  const { system, client, lines } = await startScenario(t);
  let { refreshToken } = await client.login('ada');
  const stream = await client.listen('bob');
  const { answers, stop } = await startLoginStorm(system, (index) => `192.0.2.${index}`);

  const published: string[] = [];
  const refresh = async () => {
    const json = { token: refreshToken };
    const headers = { 'x-forwarded-for': `198.51.100.${published.length}` };
    const { status, body } = await client.ask('POST', '/token', { json, headers });
    assert.equal(status, 200);
    refreshToken = String(body['refreshToken']);
  };
  // Runs until logins are refused; after that, the stream must still get a heartbeat.
  await until(async () => {
    await refresh();
    published.push(await system.publish('bob', published.length));
    return answers.some(({ status }) => status === 503) && published.length >= 5;
  });
  const { comments } = stream;
  await stream.until(() => (stream.comments > comments ? true : undefined));
  await refresh();
  await stop();

  assertFastRefusals(answers);
  await stream.until(() => (stream.ids.length === published.length ? true : undefined));
  assert.deepEqual(stream.ids, published);
  assert.equal(lines.filter(({ level }) => level === 'error').length, 0);
  const json = { username: 'ada', password: getPassword('ada') };
  assert.equal((await client.ask('POST', '/login', { json })).status, 200);
});

test('one address cannot fill the login queue', async (t) => {
  const { system, client } = await startScenario(t, { AUTH_QUEUE_MAX: '64' });
  const { answers, stop } = await startLoginStorm(system, () => '192.0.2.1');
  await until(() => answers.some(({ status }) => status === 503));

  const otherAnswers: Answer[] = [];
  while (otherAnswers.length < 5)
    otherAnswers.push(await tryUnknownUser(client, `me ${otherAnswers.length}`, '198.51.100.1'));
  await stop();

  assertFastRefusals(answers);
  assert.deepEqual(
    otherAnswers.map(({ status }) => status),
    [401, 401, 401, 401, 401],
  );
});

test('a queued login is dropped when its client disconnects', async (t) => {
  const { client, lines } = await startScenario(t, {
    ARGON2_MEMORY_KIB: '131072',
    ARGON2_TIME: '4',
  });
  const json = { username: 'left', password: 'not the password' };

  // The first three logins take a second or more; the abandoned one must disconnect before they are done.
  const earlierLogins = [1, 2, 3].map((index) =>
    tryUnknownUser(client, `first ${index}`, '192.0.2.1'),
  );
  const { session } = client;
  const abandoned = session.request({
    ':method': 'POST',
    ':path': '/login',
    'content-type': 'application/json',
  });
  abandoned.on('error', () => {});
  abandoned.end(JSON.stringify(json));
  const last = tryUnknownUser(client, 'last', '192.0.2.1');
  await client.ask('GET', '/health/live'); // All logins have arrived by now.
  abandoned.close(8); // CANCEL

  const statuses = (await Promise.all([...earlierLogins, last])).map(({ status }) => status);
  assert.deepEqual(statuses, [401, 401, 401, 401]);
  const logins = lines.filter(({ route, event }) => route === '/login' || event !== undefined);
  const seen = logins.map(({ status, event }) => status ?? event);
  assert.deepEqual(seen, [499, ...Array(4).fill(['authn_login_fail', 401]).flat()]);
});
