import assert from 'node:assert/strict';
import { test } from 'node:test';
import { migrate } from '../src/db/migrations/migrate.js';
import { parseClosing } from './support/clients/event-collector.js';
import { EventSourceClient } from './support/clients/event-source.js';
import { databaseEnv, findServer } from './support/databases/test-server.js';
import { collectingLog } from './support/recording/collecting-log.js';
import { startSystem } from './support/servers/system.js';
import { openTcpProxy } from './support/tcp-proxy.js';
import { until } from './support/until.js';

/** Sets the retry time of refused clients to 100 ms instead of 10 to 30 s. */
const shortRetryRandom = () => -0.495;

for (const dialect of ['postgres', 'mariadb'] as const) {
  const server = await findServer(dialect);
  const skip = typeof server === 'string' ? server : false;

  test(`${dialect}: requests get 503 during an outage, and EventSource resumes after it`, {
    skip,
  }, async (t) => {
    if (typeof server === 'string') return;
    const { options } = server;
    await migrate(options);
    const proxy = await openTcpProxy(options);
    const env = {
      ...databaseEnv({ ...options, host: '127.0.0.1', port: proxy.port }),
      DB_CONNECT_TIMEOUT: '4000',
    };
    const lines: Record<string, unknown>[] = [];
    const log = collectingLog(lines);
    const system = await startSystem(t, { env, random: shortRetryRandom, log });
    t.after(async () => {
      await proxy.close();
      await server.drop();
    });
    const client = await system.connect();
    const path = await client.streamPath('ada');
    const page = new EventSourceClient(system.url + path);
    system.onClose(() => page.source.close());
    await page.waitForOpenings(1);
    const first = await system.publish('ada', 'before');
    await page.until(() => page.ids.at(-1) === first || undefined);

    proxy.block();
    page.network.disconnect();
    const [closing, refusedStream, refusedPublish] = await Promise.all([
      page.event('stream.close'),
      client.ask('GET', path, { headers: { accept: '*/*' } }),
      system.post({ to: 'all', data: 'not now' }),
    ]);
    proxy.unblock();
    await page.waitForOpenings(2);
    const headers = { 'idempotency-key': 'after' }; // A refused event may have been committed.
    let second = await system.post({ to: 'all', data: 'after' }, headers);
    await until(async () => {
      if (second.status !== 201) second = await system.post({ to: 'all', data: 'after' }, headers);
      return second.status === 201;
    });
    await page.until(() => page.ids.at(-1) === second.body['id'] || undefined);

    assert.deepEqual(parseClosing(closing.data), { code: 'refused', reconnect: true });
    assert.deepEqual([refusedStream.status, refusedPublish.status], [503, 503]);
    assert.match(refusedStream.headers['retry-after'] ?? '', /^\d+$/);
    assert.deepEqual(page.dataByType('message'), ['before', 'after']);
    assert.deepEqual(page.openings[1], { resumed: true, reason: 'resumed', id: first });
    assert.deepEqual(
      lines.filter(({ level }) => level === 'error'),
      [],
    );
  });
}
