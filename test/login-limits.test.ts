import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Answer } from './support/clients/exchange.js';
import type { H2Client } from './support/clients/h2-client.js';
import { collectingLog } from './support/recording/collecting-log.js';
import { getPassword } from './support/servers/seed.js';
import { startSystem } from './support/servers/system.js';
import { until } from './support/until.js';

function tryLogin(client: H2Client, password: string, from?: string): Promise<Answer> {
  const headers = from === undefined ? {} : { 'x-forwarded-for': from };
  return client.ask('POST', '/login', { json: { username: 'ada', password }, headers });
}

function assertRefused({ status, body, headers }: Answer): void {
  assert.deepEqual([status, body['name']], [429, 'too_many_requests']);
  assert.match(headers['retry-after'] ?? '', /^[1-9]\d*$/);
  const info = body['info'] as { retryAfter: number };
  assert.equal(String(info.retryAfter), headers['retry-after']);
}

test('the server verifies only five of 100 concurrent wrong passwords', async (t) => {
  const lines: Record<string, unknown>[] = [];
  // A fixed clock, because another attempt is allowed a second after the fifth failure.
  const system = await startSystem(t, { log: collectingLog(lines), monotonicClock: () => 1000 });
  const client = await system.connect();

  const answers = await Promise.all(
    Array.from({ length: 100 }, (_, index) => tryLogin(client, `not the password ${index}`)),
  );

  const refused = answers.filter(({ status }) => status !== 401);
  assert.equal(refused.length, 95);
  for (const answer of refused) assertRefused(answer);
  assert.equal(lines.filter(({ event }) => event === 'authn_login_fail').length, 5);
  // From this address, the right password has to wait now, too.
  assertRefused(await tryLogin(client, getPassword('ada')));
});

test('thirty concurrent logins with the right password all succeed', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const password = getPassword('ada');

  const answers = await Promise.all(Array.from({ length: 30 }, () => tryLogin(client, password)));

  assert.deepEqual([...new Set(answers.map(({ status }) => status))], [200]);
});

test('thirty people of one office log in at the same time, with the default limits of an address', async (t) => {
  const slowHashEnv = { ARGON2_MEMORY_KIB: '19456', ARGON2_TIME: '2', AUTH_WORKERS: '1' };
  const env = { ...slowHashEnv, LOGIN_IP_RATE: '30/60000' };
  const system = await startSystem(t, { env });
  const client = await system.connect();
  const password = 'a password of the office';
  const usernames = Array.from({ length: 30 }, (_, index) => `person ${index}`);
  await system.runAdmin(async ({ accounts }) => {
    for (const username of usernames)
      await accounts.create({ username, password, firstName: 'A', lastName: 'B' });
  });

  const answers = await Promise.all(
    usernames.map((username) => client.ask('POST', '/login', { json: { username, password } })),
  );

  assert.deepEqual([...new Set(answers.map(({ status }) => status))], [200]);
});

test('wrong passwords from many /64s of one IPv6 /48 do not keep the owner from logging in elsewhere', async (t) => {
  const env = { TRUST_PROXY_HOPS: '1' };
  const system = await startSystem(t, { env, monotonicClock: () => 1000 });
  const client = await system.connect();

  const statuses: number[] = [];
  for (let index = 0; index < 30; index += 1) {
    const from = `2001:db8:1:${index}::1`;
    statuses.push((await tryLogin(client, 'not the password', from)).status);
  }
  const owner = await tryLogin(client, getPassword('ada'), '198.51.100.1');

  assert.deepEqual(statuses, [...Array(10).fill(401), ...Array(20).fill(429)]);
  assert.equal(owner.status, 200);
});

test('a login rejected because the queue is full does not count as a failure', async (t) => {
  const slowHashEnv = { ARGON2_MEMORY_KIB: '65536', ARGON2_TIME: '2' }; // Slow logins fill the queue.
  const env = { AUTH_WORKERS: '1', AUTH_QUEUE_MAX: '1', ...slowHashEnv };
  const system = await startSystem(t, { env });
  const client = await system.connect();
  let isOver = false;
  const filling = ['one', 'two', 'three'].map(async (name) => {
    for (let round = 0; !isOver; round += 1) {
      const json = { username: `${name} ${round}`, password: 'not the password' };
      await client.ask('POST', '/login', { json });
    }
  });

  let consecutive = 0;
  await until(async () => {
    const { status } = await tryLogin(client, getPassword('ada'));
    assert.ok(status === 503 || status === 200, `${status}`); // 200 when the queue had room.
    consecutive = status === 503 ? consecutive + 1 : 0;
    return consecutive === 6;
  });
  isOver = true;
  await Promise.all(filling);

  assert.equal((await tryLogin(client, getPassword('ada'))).status, 200);
});

// [trusted proxies, X-Forwarded-For, whether each request counts for a different address]
const forwarded = [
  [0, (index: number) => `192.0.2.${index}`, false],
  [1, (index: number) => `192.0.2.${index}, 198.51.100.1`, false],
  [1, (index: number) => `198.51.100.1, 192.0.2.${index}`, true],
  [1, (index: number) => `2001:db8::${index}`, false], // One /64 is one address.
  [1, (index: number) => `2001:db8:0:${index}::1`, true],
] as const;

for (const [hops, from, isDifferent] of forwarded) {
  test(`behind ${hops} proxies, X-Forwarded-For "${from(1)}" and "${from(2)}" are ${isDifferent ? 'two addresses' : 'one address'}`, async (t) => {
    const env = { TRUST_PROXY_HOPS: String(hops), LOGIN_IP_RATE: '3/3600000' };
    const system = await startSystem(t, { env });
    const client = await system.connect();

    const answers: Answer[] = [];
    for (let index = 1; index <= 4; index += 1) {
      answers.push(await tryLogin(client, getPassword('ada'), from(index)));
    }

    const statuses = answers.map(({ status }) => status);
    assert.deepEqual(statuses, [200, 200, 200, isDifferent ? 200 : 429]);
  });
}
