import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { App } from '../../../src/app.js';
import { selfSigned } from '../../../src/commands/self-signed.js';
import { loadConfig } from '../../../src/config/config.js';
import { migrate } from '../../../src/db/migrations/migrate.js';
import { findServer, type TestServer } from '../databases/test-server.js';
import { recordedLog } from '../recording/record.js';
import { type Launched, launch } from './launch.js';

export interface Cluster {
  /** Settings every process of it has. */
  readonly env: Readonly<Record<string, string>>;
  readonly certificate: string;
  /** One more process on the same database; closed after the test. */
  start(more?: Readonly<Record<string, string>>): Promise<App>;
  /** One more as a process of the operating system; killed after the test. */
  launch(more?: Readonly<Record<string, string>>): Promise<Launched>;
  administer(text: string): Promise<unknown>;
}

/** A database of its own on a real server, migrated, for any number of processes. */
export async function clusterFor(
  t: TestContext,
  dialect: 'postgres' | 'mariadb' | 'mysql',
): Promise<Cluster> {
  const server = await findServer(dialect);
  if (typeof server === 'string') throw new Error(server); // Callers have looked before.
  return clusterOn(t, server);
}

/** The same on a server that the caller knows. */
export async function clusterOn(t: TestContext, server: TestServer): Promise<Cluster> {
  const { options, administer } = server;
  await migrate(options);
  const folder = mkdtempSync(join(tmpdir(), 'herald-cluster-'));
  const { certificate, privateKey } = selfSigned(['localhost', '127.0.0.1'], Date.now());
  writeFileSync(join(folder, 'server.cert'), certificate);
  writeFileSync(join(folder, 'server.key'), privateKey);
  const env = {
    NODE_ENV: 'test',
    HOST: '127.0.0.1',
    PORT: '0',
    CERTIFICATE: join(folder, 'server.cert'),
    PRIVATE_KEY: join(folder, 'server.key'),
    LOG_PATH: 'off',
    DATA_DIR: folder,
    DB_DIALECT: options.dialect,
    DB_HOST: options.host,
    DB_PORT: String(options.port),
    DB_NAME: options.database,
    DB_USERNAME: options.username,
    DB_PASSWORD: options.password,
    DB_CONNECTIONS: '4',
    ACCESS_TOKEN_SECRET: 'hex:00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef',
    AUTH_WORKERS: '1',
    AUTH_QUEUE_TIMEOUT: '60000',
    DRAIN_TIMEOUT: '15000',
    DB_CONNECT_TIMEOUT: '10000',
  };
  const apps: App[] = [];
  const processes: Launched[] = [];
  t.after(async () => {
    await Promise.all(processes.map((one) => one.end('SIGKILL')));
    await Promise.all(apps.map((app) => app.close()));
    await server.drop();
    rmSync(folder, { recursive: true, force: true });
  });
  return {
    env,
    certificate,
    administer,
    async start(more = {}) {
      const app = await App.open({ config: loadConfig({ ...env, ...more }), log: recordedLog });
      apps.push(app);
      return app;
    },
    async launch(more = {}) {
      const launched = await launch({ env: { ...env, ...more }, cwd: folder });
      processes.push(launched);
      return launched;
    },
  };
}
