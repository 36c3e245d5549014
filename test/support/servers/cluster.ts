import { rmSync } from 'node:fs';
import type { TestContext } from 'node:test';
import { App, type AppOptions } from '../../../src/app.js';
import { loadConfig } from '../../../src/config/config.js';
import { migrate } from '../../../src/db/migrations/migrate.js';
import { databaseEnv, findServer, type TestServer } from '../databases/test-server.js';
import { startOpenApiCheck } from '../openapi/observer.js';
import { recordedLog } from '../recording/record.js';
import { type LaunchOptions, launch, type ServerHandle } from './launch.js';
import { type Env, prepare, type Username } from './seed.js';

export interface Cluster {
  /** Settings of every process. */
  readonly env: Env;
  readonly userIds: Readonly<Record<Username, string>>;
  readonly apiKey: string;
  /** Starts another server inside this process, on the same database; closed after the test. */
  start(
    extraEnv?: Env,
    options?: Partial<Pick<AppOptions, 'log' | 'wallClock' | 'monotonicClock'>>,
  ): Promise<App>;
  /** Starts another server as a child process; killed after the test. */
  launch(extraEnv?: Env, options?: Pick<LaunchOptions, 'root' | 'onLine'>): Promise<ServerHandle>;
  /** Runs an SQL text on the database server, on a new connection. */
  administer(text: string): Promise<unknown>;
}

/** Creates a migrated and seeded database on a database server, for any number of Herald processes. */
export async function clusterFor(
  t: TestContext,
  dialect: 'postgres' | 'mariadb' | 'mysql',
): Promise<Cluster> {
  const server = await findServer(dialect);
  if (typeof server === 'string') throw new Error(server); // Callers skip the test in that case.
  return clusterOn(t, server);
}

/** Like `clusterFor`, on the given database server. */
export async function clusterOn(t: TestContext, server: TestServer): Promise<Cluster> {
  const { options, administer } = server;
  await migrate(options);
  const apps: App[] = [];
  const processes: ServerHandle[] = [];
  t.after(async () => {
    await Promise.all(processes.map((one) => one.end('SIGKILL')));
    await Promise.all(apps.map((app) => app.close()));
    await server.drop();
  });
  const { folder, env, userIds, apiKey } = await prepare({
    ...databaseEnv(options),
    PORT: '0',
    DB_CONNECTIONS: '4',
    DB_CONNECT_TIMEOUT: '10000',
  });
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return {
    env,
    userIds,
    apiKey,
    administer,
    async start(extraEnv = {}, options = {}) {
      const config = loadConfig({ ...env, ...extraEnv });
      const app = await App.open({ config, log: recordedLog, ...options });
      apps.push(app);
      const stopCheck = startOpenApiCheck(app.port);
      t.after(stopCheck);
      return app;
    },
    async launch(extraEnv = {}, options = {}) {
      const launched = await launch({ ...options, env: { ...env, ...extraEnv }, cwd: folder });
      processes.push(launched);
      return launched;
    },
  };
}
