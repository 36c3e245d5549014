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

const tryLogin = (client: H2Client, username: string, password: string) =>
  client.ask('POST', '/login', { json: { username, password } });

async function repeat(count: number, act: () => Promise<unknown>): Promise<void> {
  for (let done = 0; done < count; done += 1) await act();
}

const hour = 3_600_000;
const wrongPassword = 'not the password';

// [event, level, expected fields, action that triggers the event]
const auditEvents: readonly [string, string, object, (scenario: Scenario) => Promise<unknown>][] = [
  ['authn_login_success', 'info', { failures: 0 }, ({ client }) => client.login('bob')],
  [
    'authn_login_successafterfail',
    'info',
    { failures: 1 },
    async ({ client }) => {
      await tryLogin(client, 'bob', wrongPassword);
      await client.login('bob');
    },
  ],
  [
    'authn_login_fail',
    'info',
    { reason: 'wrong password' },
    ({ client }) => tryLogin(client, 'bob', wrongPassword),
  ],
  [
    'authn_login_fail',
    'info',
    { reason: 'unknown user' },
    ({ client }) => tryLogin(client, 'nobody', wrongPassword),
  ],
  [
    'authn_login_fail_max',
    'warn',
    {},
    ({ client }) => repeat(5, () => tryLogin(client, 'bob', wrongPassword)),
  ],
  [
    'authn_login_lock',
    'warn',
    {},
    ({ client }) => repeat(6, () => tryLogin(client, 'bob', wrongPassword)),
  ],
  [
    'excess_rate_limit_exceeded',
    'warn',
    { reason: 'login' },
    ({ client }) => repeat(20, () => client.login('bob').catch(() => {})),
  ],
  [
    'excess_rate_limit_exceeded',
    'warn',
    { reason: 'token' },
    ({ client }) => repeat(11, () => client.ask('POST', '/token', { json: { token: 'none' } })),
  ],
  [
    'excess_rate_limit_exceeded',
    'warn',
    { reason: 'streamToken' },
    ({ client }) => repeat(4, () => client.streamPath('bob').catch(() => {})),
  ],
  [
    'excess_rate_limit_exceeded',
    'warn',
    { reason: 'streamOpen' },
    ({ client }) => repeat(4, () => client.ask('GET', '/stream/live/none')),
  ],
  ['excess_sessions_exceeded', 'info', {}, ({ client }) => repeat(4, () => client.login('bob'))],
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
      repeat(2, () => client.ask('POST', '/token', { json: { token } })),
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

for (const [event, level, fields, act] of auditEvents) {
  test(`the server logs the audit line ${event} ${JSON.stringify(fields)}`, async (t) => {
    const { scenario, lines } = await startScenario(t);
    lines.length = 0;

    await act(scenario);

    const candidates = lines.filter((line) => line['audit'] === true && line['event'] === event);
    const auditLine = candidates.find((line) =>
      Object.entries(fields).every(([name, value]) => line[name] === value),
    );
    assert.ok(auditLine, JSON.stringify(lines));
    assert.equal(auditLine['level'], level);
    assert.match(String(auditLine['requestId']), /^[\w-]{8,64}$/);
    assert.equal(auditLine['ipKey'], '127.0.0.1');
    // The line identifies the user; an unknown name is logged only as a pseudonym.
    assert.ok(
      'userId' in auditLine || 'unknownUser' in auditLine || event.startsWith('excess_rate'),
    );
    assert.equal(JSON.stringify(auditLine).includes('nobody'), false);
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
    monotonicClock: () => 1000, // Fixed, because another attempt is allowed a second later.
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

  const disabled = await tryLogin(scenario.client, 'bob', getPassword('bob'));
  const unknown = await tryLogin(scenario.client, 'nobody', wrongPassword);

  const { instance: _, ...disabledBody } = disabled.body;
  const { instance: __, ...unknownBody } = unknown.body;
  assert.deepEqual(disabledBody, unknownBody);
  const reasons = lines.filter(({ event }) => event === 'authn_login_fail');
  assert.deepEqual(
    reasons.map(({ reason }) => reason),
    ['account disabled, or changed during the login', 'unknown user'],
  );
});
