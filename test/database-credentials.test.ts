import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, type TestContext, test } from 'node:test';
import { createSelfSigned } from '../src/certificates/self-signed.js';
import { withDatabase } from '../src/commands/database.js';
import { loadConfig } from '../src/config/config.js';
import { sql } from '../src/db/database.js';
import { H2Client } from './support/clients/h2-client.js';
import {
  createDedicatedServer,
  type DedicatedServer,
} from './support/databases/dedicated-server.js';
import { createUnprivilegedAccount, killConnections } from './support/databases/faults.js';
import type { ServerDialect } from './support/databases/test-server.js';
import { collectingLog } from './support/recording/collecting-log.js';
import { recordedLog } from './support/recording/record.js';
import { type Cluster, clusterOn } from './support/servers/cluster.js';
import { tempFolder } from './support/servers/process.js';
import type { Env } from './support/servers/seed.js';
import { until } from './support/until.js';

/** Statements that set the password of the account `plain`, and that let it expire. */
const accountStatements: Readonly<
  Record<ServerDialect, { set(password: string): string; readonly expire: string }>
> = {
  postgres: {
    set: (password) => `alter role plain password '${password}' valid until 'infinity'`,
    expire: "alter role plain valid until '2000-01-01'",
  },
  mariadb: {
    set: (password) => `alter user 'plain'@'%' identified by '${password}'`,
    expire: "alter user 'plain'@'%' password expire",
  },
  mysql: {
    set: (password) => `alter user 'plain'@'%' identified by '${password}'`,
    expire: "alter user 'plain'@'%' password expire",
  },
};

/** Starts a process of the cluster, with a client that publishes to it and an open stream. */
async function startProcess(t: TestContext, cluster: Cluster, env: Env) {
  const lines: Record<string, unknown>[] = [];
  const app = await cluster.start(
    { DB_CONNECT_TIMEOUT: '2000', ...env },
    { log: collectingLog(lines) },
  );
  const client = await H2Client.connect(`https://127.0.0.1:${app.port}`);
  t.after(() => client.destroy());
  const stream = await client.listen('ada');
  const acknowledged: string[] = [];
  return {
    stream,
    async publish() {
      const json = { to: 'all', data: 'x' };
      const { apiKey: bearer } = cluster;
      const { status, body } = await client.ask('POST', '/events', { bearer, json });
      if (status === 201) acknowledged.push(String(body['id']));
      return status;
    },
    waitForReason: (reason: string | undefined) =>
      until(async () => {
        const { status, body } = await client.ask('GET', '/health/ready');
        const reasons = body['reasons'] as Record<string, unknown> | undefined;
        return status === (reason === undefined ? 200 : 503) && reasons?.['database'] === reason;
      }),
    getLines: (phrase: string, reason: string) =>
      lines.filter((line) => line['phrase'] === phrase && line['reason'] === reason),
    async assertNoLoss() {
      await stream.until(() => stream.ids.includes(acknowledged.at(-1) ?? '') || undefined);
      assert.deepEqual(
        stream.ids.filter((id) => acknowledged.includes(id)),
        acknowledged,
      );
      assert.equal(stream.isEnded, false);
    },
  };
}

/** PostgreSQL's test servers trust every password, except with these rules. */
function createServer(dialect: ServerDialect, tls?: ReturnType<typeof createSelfSigned>) {
  const rules = 'host all postgres all trust\nhost all all all scram-sha-256\n';
  const options = { ...(tls && { tls }), ...(dialect === 'postgres' && { hbaRules: rules }) };
  return createDedicatedServer(dialect, options);
}

const certificates = ['first', 'second'].map((authority) =>
  createSelfSigned([authority, '127.0.0.1'], Date.now()),
);
const [first, second] = certificates as [(typeof certificates)[0], (typeof certificates)[0]];

const setups: {
  readonly dialect: ServerDialect;
  readonly server: DedicatedServer | string;
  readonly tlsServer: DedicatedServer | string;
}[] = [];
for (const dialect of ['postgres', 'mariadb', 'mysql'] as const) {
  const [server, tlsServer] = [await createServer(dialect), await createServer(dialect, first)];
  setups.push({ dialect, server, tlsServer });
}
const servers = setups
  .flatMap(({ server, tlsServer }) => [server, tlsServer])
  .filter((server) => typeof server !== 'string');

// Each test has its own server. They mostly wait for time limits, so they run at the same time.
describe('credentials of the database', { concurrency: true }, () => {
  // All servers run before the first limit does.
  before(() => Promise.all(servers.map((server) => server.start())));
  after(() => Promise.all(servers.map((server) => server.remove())));

  for (const { dialect, server, tlsServer } of setups) {
    test(`${dialect}: DB_PASSWORD_FILE is read again for each connection, and a refused login is reported until a login succeeds`, {
      skip: typeof server === 'string' ? server : false,
    }, async (t) => {
      if (typeof server === 'string') return;
      const cluster = await clusterOn(t, server);
      const { DB_USERNAME } = await createUnprivilegedAccount(cluster, dialect);
      await dropLocalAccount(server, dialect);
      const { set, expire } = accountStatements[dialect];
      const file = join(tempFolder(t), 'password');
      const setPassword = (password: string) => server.administer(set(password));
      await setPassword('first');
      writeFileSync(file, 'first\n');
      const env = { DB_USERNAME, DB_PASSWORD_FILE: file };
      const herald = await startProcess(t, cluster, env);
      assert.equal(await herald.publish(), 201);

      await setPassword('second');
      assert.equal(await herald.publish(), 201); // On the open connections.
      writeFileSync(file, 'second\n');
      await killConnections(cluster, dialect);
      await until(async () => (await herald.publish()) === 201);
      await herald.waitForReason(undefined);
      assert.deepEqual(herald.getLines('database unavailable', 'login_refused'), []);

      for (const [password, refuse] of [
        ['third', () => setPassword('third')],
        ['fourth', () => server.administer(expire)],
      ] as const) {
        await refuse();
        await killConnections(cluster, dialect);
        await until(async () => (await herald.publish()) === 503);
        await herald.waitForReason('login_refused');
        await setPassword(password);
        writeFileSync(file, password);
        await herald.waitForReason(undefined);
        // For a second MariaDB may still have a session that must set a new password.
        await until(async () => (await herald.publish()) === 201);
      }

      const { length: count } = herald.getLines('database unavailable', 'login_refused');
      assert.ok(dialect === 'mariadb' ? count >= 2 : count === 2, String(count));
      await herald.assertNoLoss();
      // A command reads the file, too.
      const config = loadConfig({ ...cluster.env, ...env });
      const rows = await withDatabase(config, recordedLog, (db) => db.query(sql`select 1 as one`));
      assert.deepEqual(rows, [{ one: 1 }]);
    });

    test(`${dialect}: DB_SSL_CA_FILE is read again for each connection, so that the certificate of the server can be replaced`, {
      skip: typeof tlsServer === 'string' ? tlsServer : false,
    }, async (t) => {
      if (typeof tlsServer === 'string') return;
      const cluster = await clusterOn(t, tlsServer);
      const file = join(tempFolder(t), 'ca.pem');
      writeFileSync(file, first.certificate);
      const herald = await startProcess(t, cluster, { DB_SSL: 'verify', DB_SSL_CA_FILE: file });
      assert.equal(await herald.publish(), 201);

      await tlsServer.replaceTls(second);
      assert.equal(await herald.publish(), 201); // On the open connections.
      await killConnections(cluster, dialect);
      await until(async () => (await herald.publish()) === 503);
      await herald.waitForReason('tls_failed');
      writeFileSync(file, 'not a certificate');
      assert.equal(await herald.publish(), 503);
      writeFileSync(file, first.certificate + second.certificate);
      await herald.waitForReason(undefined);
      assert.equal(await herald.publish(), 201);

      assert.equal(herald.getLines('database unavailable', 'tls_failed').length, 1);
      await herald.assertNoLoss();
    });
  }
});

/** Leaves one account, so that one statement changes its password. */
async function dropLocalAccount({ administer }: DedicatedServer, dialect: ServerDialect) {
  if (dialect !== 'postgres') await administer("drop user 'plain'@'localhost'");
}
