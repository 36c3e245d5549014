import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { collectingLog } from './support/recording/collecting-log.js';
import { recordSecret } from './support/recording/record.js';
import type { Env } from './support/servers/seed.js';
import { startSystem } from './support/servers/system.js';
import { until } from './support/until.js';

async function startScenario(t: TestContext, env: Env) {
  const lines: Record<string, unknown>[] = [];
  const time = { now: 1000 };
  const system = await startSystem(t, {
    env,
    log: collectingLog(lines),
    monotonicClock: () => time.now,
  });
  const client = await system.connect();
  return { system, client, lines, time };
}

test('the first rate-limited request is logged at once, and later ones once a minute', async (t) => {
  const { system, client, lines, time } = await startScenario(t, {
    STREAM_OPEN_IP_RATE: '3/3600000',
  });
  const { key: bearer } = await system.runAdmin(({ apiKeys }) =>
    apiKeys.create({ name: 'prometheus', scopes: ['metrics'] }),
  );
  recordSecret(bearer);
  const statuses: number[] = [];
  for (let count = 0; count < 13; count += 1) {
    statuses.push((await client.ask('GET', '/stream/live/none')).status);
  }
  assert.deepEqual(statuses, [...Array(3).fill(401), ...Array(10).fill(429)]);

  const getLines = () => lines.filter(({ event }) => event === 'excess_rate_limit_exceeded');
  assert.equal(getLines().length, 1);
  const { text } = await client.ask('GET', '/metrics', { bearer });
  assert.match(text, /_count\{method="GET",route="\/stream\/live\/:token",status="429"\} 10\n/);

  time.now += 60_000;
  await until(() => getLines().length > 1);
  const { userAgent: _, ...line } = getLines()[1] ?? {};
  assert.deepEqual(line, {
    ...{ level: 'warn', phrase: 'audit', audit: true, event: 'excess_rate_limit_exceeded' },
    ...{ ipKey: '127.0.0.1', reason: 'streamOpen', repeated: 9 },
  });
});

test('refusals at the stream limit are aggregated, and pending summaries are logged on shutdown', async (t) => {
  const { system, client, lines } = await startScenario(t, { MAX_STREAMS: '1' });
  await client.listen('ada');
  const path = await client.streamPath('ada');

  for (let count = 0; count < 3; count += 1) {
    await client.ask('GET', path, { headers: { accept: '*/*' } });
    await (await client.openStream(path)).closing();
  }
  const getLines = () =>
    lines.filter(({ phrase }) => /^(request|stream) refused$/.test(`${phrase}`));
  assert.equal(getLines().length, 2);
  client.destroy();
  await system.stop();

  const reason = 'Cannot open stream: the stream limit is reached';
  assert.deepEqual(getLines().slice(2), [
    {
      ...{ level: 'warn', phrase: 'request refused', route: '/stream/live/:token' },
      ...{ reason, repeated: 2 },
    },
    { level: 'warn', phrase: 'stream refused', reason, repeated: 2 },
  ]);
});
