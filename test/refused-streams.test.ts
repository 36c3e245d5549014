import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withDatabase } from '../src/commands/database.js';
import { loadConfig } from '../src/config/config.js';
import { sql } from '../src/db/database.js';
import { H2Client } from './support/clients/h2-client.js';
import { findServer } from './support/databases/test-server.js';
import { recordedLog } from './support/recording/record.js';
import { clusterFor } from './support/servers/cluster.js';
import { until } from './support/until.js';

for (const dialect of ['postgres', 'mariadb', 'mysql'] as const) {
  const server = await findServer(dialect);
  const skip = typeof server === 'string' ? server : false;

  test(`${dialect}: a stream token that one process refused opens in another process, even after its original expiry`, {
    skip,
  }, async (t) => {
    const cluster = await clusterFor(t, dialect);
    const shortLife = { STREAM_TOKEN_EXPIRES_IN: '3000' };
    const full = await cluster.start({ ...shortLife, MAX_STREAMS: '1' });
    const other = await cluster.start(shortLife);
    const [client, otherClient] = await Promise.all(
      [full, other].map(({ port }) => H2Client.connect(`https://localhost:${port}`)),
    );
    assert.ok(client && otherClient);
    t.after(() => {
      client.destroy();
      otherClient.destroy();
    });
    await client.listen('bob');
    const path = await client.streamPath('ada');
    const authorization = `Bearer ${(await client.streamPath('ada')).split('/').at(-1)}`;
    const unusedPath = await client.streamPath('ada');
    const openBoth = (from: H2Client) =>
      Promise.all([from.openStream(path), from.openStream('/stream/live', { authorization })]);
    const readOutcomes = async (from: H2Client) =>
      Promise.all((await openBoth(from)).map((stream) => stream.outcome()));

    const refused = await readOutcomes(client);
    await withDatabase(loadConfig(cluster.env), recordedLog, (db) =>
      until(async () => {
        const rows = await db.query<{ expires_at: number }>(
          sql`select expires_at from stream_tokens where lease_until is null order by expires_at`,
        );
        const [unused = Number.NaN, ...extended] = rows.map((row) => row.expires_at);
        const areStored = extended.filter((expiresAt) => expiresAt > unused + 9000).length === 2;
        assert.ok(areStored || Date.now() < unused + 9000, 'the later expiries are not stored');
        return areStored && unused < Date.now();
      }),
    );
    const { status } = await otherClient.ask('GET', unusedPath);
    const opened = await readOutcomes(otherClient);

    assert.deepEqual(refused, ['refused', 'refused']);
    assert.equal(status, 401);
    assert.deepEqual(opened, ['open', 'open']);
  });
}
