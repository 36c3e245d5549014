import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withDatabase } from '../src/commands/database.js';
import { loadConfig } from '../src/config/config.js';
import { sql } from '../src/db/database.js';
import type { H2Stream } from './support/clients/h2-client.js';
import { collectingLog } from './support/recording/collecting-log.js';
import { recordedLog } from './support/recording/record.js';
import { startSystem } from './support/servers/system.js';
import { until } from './support/until.js';

test('a stream token that more than five addresses take over in a minute is revoked', async (t) => {
  const lines: Record<string, unknown>[] = [];
  const env = { TRUST_PROXY_HOPS: '1' };
  const system = await startSystem(t, { env, log: collectingLog(lines) });
  const client = await system.connect();
  const path = await client.streamPath('ada');
  const openFrom = (host: number) =>
    client.openStream(path, { 'x-forwarded-for': `192.0.2.${host}` });
  const other = await client.listen('ada');

  const streams: H2Stream[] = [];
  const hasHolder = () =>
    withDatabase(loadConfig(system.env), recordedLog, async (db) => {
      const held = sql`select version from stream_tokens where connection_id is not null`;
      return (await db.query(held)).length > 0;
    });
  for (const host of [1, 2, 3, 4, 5, 6]) {
    const stream = await openFrom(host);
    await stream.opening();
    await streams.at(-1)?.closing(); // The new stream has claimed the token.
    await until(hasHolder);
    streams.push(stream);
  }
  const seventh = await openFrom(7);

  assert.equal(seventh.status, 401);
  const codes = await Promise.all(streams.map(async (stream) => (await stream.closing())?.code));
  assert.deepEqual(codes, [...Array(5).fill('replaced'), 'revoked']);
  assert.equal((await openFrom(1)).status, 401);
  const auditLines = lines.filter(({ event }) => event === 'authn_token_reuse');
  assert.deepEqual(
    auditLines.map(({ level, audit, reason, ipKey, userId }) => [
      level,
      audit,
      reason,
      ipKey,
      userId,
    ]),
    [['warn', true, 'stream token', '192.0.2.7', system.userIds.ada]],
  );
  assert.equal(other.isEnded, false); // The session and its other streams stay open.
  await (await client.listen('ada')).opening();
});

test('one client may replace its own stream repeatedly', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const path = await client.streamPath('ada');

  for (let times = 0; times < 8; times += 1) {
    await (await client.openStream(path)).opening();
  }
});
