import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseClosing } from './support/clients/event-collector.js';
import { EventSourceClient } from './support/clients/event-source.js';
import type { Answer } from './support/clients/exchange.js';
import type { H2Client } from './support/clients/h2-client.js';
import { tempFolder } from './support/servers/process.js';
import { getPassword } from './support/servers/seed.js';
import { startSystem } from './support/servers/system.js';

const threePerHour = '3/3600000';

// [requests, setting, function that sends one, its status within the rate]
const rates: readonly [string, string, (client: H2Client) => Promise<Answer>, number][] = [
  [
    'logins of an address',
    'LOGIN_IP_RATE',
    (client) =>
      client.ask('POST', '/login', { json: { username: 'ada', password: getPassword('ada') } }),
    200,
  ],
  [
    'refreshes of an address',
    'TOKEN_IP_RATE',
    (client) => client.ask('POST', '/token', { json: { token: 'unknown' } }),
    401,
  ],
  [
    'stream tokens of a user',
    'STREAM_TOKEN_USER_RATE',
    async (client) =>
      client.ask('POST', '/stream/token', { bearer: await client.accessToken('ada') }),
    200,
  ],
  [
    'streams opened with a stream token',
    'STREAM_OPEN_IP_RATE',
    (client) => client.ask('GET', '/stream/live/unknown'),
    401,
  ],
  [
    'streams opened with an access token',
    'STREAM_OPEN_IP_RATE',
    (client) => client.ask('GET', '/stream/live', { bearer: 'unknown' }),
    401,
  ],
  [
    'unknown API keys of an address',
    'INVALID_TOKEN_IP_RATE',
    (client) => client.ask('POST', '/events', { bearer: `hk_${'0'.repeat(16)}_${'A'.repeat(43)}` }),
    401,
  ],
];

for (const [what, setting, attempt, status] of rates) {
  test(`${what} over ${setting} get 429 with the time until a retry`, async (t) => {
    const system = await startSystem(t, {
      env: { [setting]: threePerHour },
      monotonicClock: () => 1000,
    });
    const client = await system.connect();

    const answers: Answer[] = [];
    for (let count = 0; count < 4; count += 1) answers.push(await attempt(client));

    assert.deepEqual(
      answers.map((answer) => answer.status),
      [status, status, status, 429],
    );
    const refused = answers[3];
    assert.equal(refused?.body['name'], 'too_many_requests');
    const info = refused?.body['info'] as { retryAfter: number };
    assert.equal(info.retryAfter, 1200); // Seconds; a third of an hour.
    assert.equal(refused?.headers['retry-after'], String(info.retryAfter));
  });
}

test('forged ES512 access tokens over INVALID_TOKEN_IP_RATE get 429, and a valid token is accepted meanwhile', async (t) => {
  const file = join(tempFolder(t), 'es512.pem');
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-521' });
  writeFileSync(file, privateKey.export({ type: 'pkcs8', format: 'pem' }));
  const keys = { ACCESS_TOKEN_ALGORITHM: 'ES512', ACCESS_TOKEN_PRIVATE_KEY_FILE: file };
  const system = await startSystem(t, { env: { ...keys, INVALID_TOKEN_IP_RATE: threePerHour } });
  const client = await system.connect();
  const valid = await client.accessToken('ada');
  const forged = `${valid.slice(0, valid.lastIndexOf('.'))}.${'A'.repeat(176)}`;
  const askWith = async (bearer: string) => (await client.ask('GET', '/me', { bearer })).status;

  const statuses: number[] = [];
  for (const bearer of [forged, forged, valid, forged, forged, valid])
    statuses.push(await askWith(bearer));

  assert.deepEqual(statuses, [401, 401, 200, 401, 429, 200]);
});

test('the rate of stream tokens applies per user, not per address', async (t) => {
  const system = await startSystem(t, { env: { STREAM_TOKEN_USER_RATE: threePerHour } });
  const client = await system.connect();
  for (let count = 0; count < 3; count += 1) await client.streamPath('ada');

  await assert.rejects(client.streamPath('ada'), /too_many_requests/);
  assert.match(await client.streamPath('bob'), /^\/stream\/live\//);
});

test('a valid stream token over the rate is refused, and open streams stay open', async (t) => {
  const system = await startSystem(t, { env: { STREAM_OPEN_IP_RATE: '1/3600000' } });
  const client = await system.connect();
  const stream = await client.listen('ada');

  const path = await client.streamPath('ada');
  const { status } = await client.ask('GET', path);

  assert.equal(status, 429);
  assert.equal(stream.isEnded, false);
});

for (const protocol of ['h2', 'http/1.1'] as const) {
  test(`EventSource over ${protocol} reconnects after it exceeded a rate`, async (t) => {
    const env = { STREAM_OPEN_IP_RATE: '1/5000' };
    let nowMs = 0;
    const random = () => -0.495; // Sets the retry time of refused clients to 100 ms instead of 10 to 30 s.
    const options = { env, random, monotonicClock: () => nowMs };
    const system = await startSystem(t, options);
    const client = await system.connect();
    const path = await client.streamPath('ada');
    await client.listen('bob');

    const page = new EventSourceClient(`${system.url}${path}`, { protocol });
    system.onClose(() => page.source.close());
    const closing = await page.event('stream.close');
    nowMs += 5000;
    const opening = await page.waitForOpenings(1);

    assert.deepEqual(parseClosing(closing.data), { code: 'refused', reconnect: true });
    assert.equal(opening.reason, 'fresh');
    assert.deepEqual(page.network.statuses, [200, 200]);
  });
}
