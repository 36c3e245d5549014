import assert from 'node:assert/strict';
import { test } from 'node:test';
import { getPassword } from './support/servers/seed.js';
import { startSystem } from './support/servers/system.js';

/** The limit of timer settings; the timers of Node overflow above 24 days. */
const fiveDays = '432000000';
const thirtyDays = '2592000000';
const hundredYears = '3155760000000';
const longestDurations = {
  ...{ HANDSHAKE_TIMEOUT: fiveDays, HEADERS_TIMEOUT: fiveDays, BODY_TIMEOUT: fiveDays },
  ...{ PUBLISH_IDLE_TIMEOUT: fiveDays },
  ...{ IDLE_TIMEOUT: fiveDays, END_TIMEOUT: fiveDays, CLEANUP_INTERVAL: fiveDays },
  ...{ DB_CONNECT_TIMEOUT: fiveDays, DB_STATEMENT_TIMEOUT: fiveDays },
  ...{ ACCESS_TOKEN_EXPIRES_IN: hundredYears, REFRESH_TOKEN_EXPIRES_IN: hundredYears },
  ...{ REFRESH_TOKEN_ABSOLUTE_EXPIRES_IN: hundredYears, STREAM_TOKEN_EXPIRES_IN: hundredYears },
  ...{
    STREAM_RESUME_WINDOW: hundredYears,
    EVENT_LOG_MAX_AGE: hundredYears,
    EVENT_LOG_MIN_AGE: hundredYears,
  },
  ...{ LOGIN_MAX_DELAY: hundredYears, TRUSTED_TOKEN_MAX_LIFE: thirtyDays },
};

test('with the longest allowed durations no timer overflows, and logins, tokens and publishing work', async (t) => {
  const warnings: string[] = [];
  const recordWarning = ({ name }: Error) => warnings.push(name);
  process.on('warning', recordWarning);
  t.after(() => process.off('warning', recordWarning));
  const system = await startSystem(t, { env: longestDurations });
  const client = await system.connect();

  const json = { username: 'ada', password: getPassword('ada') };
  const login = await client.ask('POST', '/login', { json });
  assert.equal(login.status, 200, login.text);
  const bearer = String(login.body['accessToken']);
  const me = await client.ask('GET', '/me', { bearer });
  const token = await client.ask('POST', '/stream/token', { bearer });
  const renewed = await client.ask('POST', '/token', {
    json: { token: login.body['refreshToken'] },
  });
  await system.publish('ada', 'hello');

  for (const answer of [me, token, renewed]) assert.equal(answer.status, 200, answer.text);
  assert.deepEqual(warnings, []);
});
