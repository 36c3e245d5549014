import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { H2Client, Login } from './support/clients/h2-client.js';
import { collectingLog } from './support/recording/collecting-log.js';
import { getPassword } from './support/servers/seed.js';
import { type System, startSystem } from './support/servers/system.js';

interface Scenario {
  readonly system: System;
  readonly client: H2Client;
  /** A login of ada, before the action. */
  readonly login: Login;
  /** Advances the wall clock. */
  readonly advance: (ms: number) => void;
}

const tryWrongPassword = (client: H2Client, username: string, password: string) =>
  client.ask('POST', '/login', { json: { username, password } });

async function times(count: number, act: () => Promise<unknown>): Promise<void> {
  for (let done = 0; done < count; done += 1) await act();
}

const hour = 3_600_000;
const wrong = 'not the password';

// [event, level, expected fields, action that triggers it]
const events: readonly [string, string, object, (scenario: Scenario) => Promise<unknown>][] = [
  ['authn_login_success', 'info', { failures: 0 }, ({ client }) => client.login('bob')],
  [
    'authn_login_successafterfail',
    'info',
    { failures: 1 },
    async ({ client }) => {
      await tryWrongPassword(client, 'bob', wrong);
      await client.login('bob');
    },
  ],
  [
    'authn_login_fail',
    'info',
    { reason: 'wrong password' },
    ({ client }) => tryWrongPassword(client, 'bob', wrong),
  ],
  [
    'authn_login_fail',
    'info',
    { reason: 'unknown user' },
    ({ client }) => tryWrongPassword(client, 'nobody', wrong),
  ],
  [
    'authn_login_fail_max',
    'warn',
    {},
    ({ client }) => times(5, () => tryWrongPassword(client, 'bob', wrong)),
  ],
  [
    'authn_login_lock',
    'warn',
    {},
    ({ client }) => times(6, () => tryWrongPassword(client, 'bob', wrong)),
  ],
  [
    'excess_rate_limit_exceeded',
    'warn',
    { reason: 'login' },
    ({ client }) => times(20, () => client.login('bob').catch(() => {})),
  ],
  [
    'excess_rate_limit_exceeded',
    'warn',
    { reason: 'token' },
    ({ client }) => times(11, () => client.ask('POST', '/token', { json: { token: 'none' } })),
  ],
  [
    'excess_rate_limit_exceeded',
    'warn',
    { reason: 'streamToken' },
    ({ client }) => times(4, () => client.streamPath('bob').catch(() => {})),
  ],
  [
    'excess_rate_limit_exceeded',
    'warn',
    { reason: 'streamOpen' },
    ({ client }) => times(4, () => client.ask('GET', '/stream/live/none')),
  ],
  ['excess_sessions_exceeded', 'info', {}, ({ client }) => times(4, () => client.login('bob'))],
  ['session_created', 'info', {}, ({ client }) => client.login('bob')],
  [
    'session_renewed',
    'info',
    {},
    ({ client, login }) => client.ask('POST', '/token', { json: { token: login.refreshToken } }),
  ],
  [
    'session_renewed',
    'info',
    { replayed: true },
    ({ client, login: { refreshToken: token } }) =>
      times(2, () => client.ask('POST', '/token', { json: { token } })),
  ],
  [
    'authn_token_reuse',
    'warn',
    {},
    async ({ client, login: { refreshToken: token }, advance }) => {
      await client.ask('POST', '/token', { json: { token } });
      advance(11_000);
      await client.ask('POST', '/token', { json: { token } });
    },
  ],
  [
    'session_expired',
    'info',
    {},
    ({ client, login: { refreshToken: token }, advance }) => {
      advance(31 * 24 * hour);
      return client.ask('POST', '/token', { json: { token } });
    },
  ],
  [
    'session_logout',
    'info',
    { reason: 'all' },
    ({ client, login: { accessToken: bearer } }) =>
      client.ask('POST', '/logout', { bearer, json: { scope: 'all' } }),
  ],
];

for (const [event, level, fields, act] of events) {
  test(`an audit line ${event} ${JSON.stringify(fields)} is logged`, async (t) => {
    const { scenario, lines } = await startScenario(t);
    lines.length = 0;

    await act(scenario);

    const audited = lines.filter((line) => line['audit'] === true && line['event'] === event);
    const found = audited.find((line) =>
      Object.entries(fields).every(([name, value]) => line[name] === value),
    );
    assert.ok(found, JSON.stringify(lines));
    assert.equal(found['level'], level);
    assert.match(String(found['requestId']), /^[\w-]{8,64}$/);
    assert.equal(found['ipKey'], '127.0.0.1');
    // Identifies the user; an unknown name is logged only as a pseudonym.
    assert.ok('userId' in found || 'unknownUser' in found || event.startsWith('excess_rate'));
    assert.equal(JSON.stringify(found).includes('nobody'), false);
  });
}

async function startScenario(t: TestContext) {
  const lines: Record<string, unknown>[] = [];
  let now = Date.now();
  const system = await startSystem(t, {
    env: {
      MAX_SESSIONS_PER_USER: '3',
      LOGIN_IP_RATE: '15/3600000',
      TOKEN_IP_RATE: '10/3600000',
      STREAM_TOKEN_USER_RATE: '3/3600000',
      STREAM_OPEN_IP_RATE: '3/3600000',
    },
    log: collectingLog(lines),
    wallClock: () => now,
    monotonicClock: () => 1000, // Fixed: the throttle would allow another attempt a second later.
  });
  const client = await system.connect();
  const login = await client.login('ada');
  const advance = (ms: number) => {
    now += ms;
  };
  return { scenario: { system, client, login, advance }, lines };
}

test('the reply to a failed login does not reveal whether the user is disabled or unknown', async (t) => {
  const { scenario, lines } = await startScenario(t);
  await scenario.system.runAdmin(({ accounts }) => accounts.disable('bob'));

  const disabled = await tryWrongPassword(scenario.client, 'bob', getPassword('bob'));
  const unknown = await tryWrongPassword(scenario.client, 'nobody', wrong);

  const { instance: _, ...one } = disabled.body;
  const { instance: __, ...other } = unknown.body;
  assert.deepEqual(one, other);
  const reasons = lines.filter(({ event }) => event === 'authn_login_fail');
  assert.deepEqual(
    reasons.map(({ reason }) => reason),
    ['disabled or changed', 'unknown user'],
  );
});
