import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withDatabase } from '../src/commands/database.js';
import { loadConfig } from '../src/config/config.js';
import { sql } from '../src/db/database.js';
import { H2Client } from './support/clients/h2-client.js';
import { findServer } from './support/databases/test-server.js';
import { recordedLog } from './support/recording/record.js';
import { clusterFor } from './support/servers/cluster.js';
import { runSource } from './support/servers/process.js';

for (const dialect of ['postgres', 'mariadb', 'mysql'] as const) {
  const server = await findServer(dialect);
  const skip = typeof server === 'string' ? server : false;

  for (const [direction, seconds] of [
    ['behind', -15],
    ['ahead of', 15],
  ] as const) {
    test(`${dialect}: a command whose clock is 15 s ${direction} the database ends sessions and prints a warning`, {
      skip,
    }, async (t) => {
      const cluster = await clusterFor(t, dialect);
      const { port } = await cluster.start();
      const client = await H2Client.connect(`https://127.0.0.1:${port}`);
      t.after(() => client.destroy());
      const { accessToken: bearer } = await client.login('ada');
      const stream = await client.listenAs(bearer);
      await stream.opening();

      const shift = `const { now } = Date; Date.now = () => now() + ${seconds * 1000};`;
      const NODE_OPTIONS = `--import=data:text/javascript,${encodeURIComponent(shift)}`;
      const { DATA_DIR: cwd = '' } = cluster.env;
      const env = { ...cluster.env, NODE_OPTIONS };
      const { code, err } = await runSource('commands/user.ts', ['disable', 'ada'], { cwd, env });
      const enabling = await runSource('commands/user.ts', ['enable', 'ada'], { cwd, env });

      assert.equal(code, 0, err);
      assert.match(err, new RegExp(`^The clock of this machine is 1[45] s ${direction} the`));
      assert.equal(enabling.code, 0, enabling.err);
      assert.deepEqual(await stream.closing(), { code: 'revoked', reconnect: false });
      assert.equal((await client.ask('GET', '/me', { bearer })).status, 401);
      const [session] = await withDatabase(loadConfig(cluster.env), recordedLog, (db) =>
        db.query<{ created: number; revoked: number }>(
          sql`select created_at as created, revoked_at as revoked from sessions`,
        ),
      );
      assert.ok(session);
      assert.ok(session.created <= session.revoked && session.revoked <= Date.now());
      const later = await client.login('ada');
      assert.equal((await client.ask('GET', '/me', { bearer: later.accessToken })).status, 200);
    });
  }
}
