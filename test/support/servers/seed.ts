import { randomBytes } from 'node:crypto';
import { copyFileSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { withAccounts } from '../../../src/commands/accounts.js';
import { loadConfig } from '../../../src/config/config.js';
import { freePort } from '../free-port.js';
import { recordSecret } from '../recording/record.js';
import { testCertificate } from './certificate.js';

export type Env = Readonly<Record<string, string>>;

/** Users in each test database; `getPassword` returns their passwords. */
export const usernames = ['ada', 'bob', 'cyd'] as const;
export type Username = (typeof usernames)[number];

export function getPassword(username: Username): string {
  return `${username}-password`;
}

/** Settings with small costs and high rates, so that tests do not wait for the defaults. */
const baseEnv: Env = {
  NODE_ENV: 'test',
  HOST: '127.0.0.1',
  PORT: '0',
  LOG_PATH: 'off',
  ACCESS_TOKEN_SECRET: `base64:${randomBytes(48).toString('base64')}`,
  ARGON2_ALLOW_WEAK: 'true',
  ARGON2_MEMORY_KIB: '7168',
  ARGON2_TIME: '1',
  AUTH_WORKERS: '1',
  AUTH_QUEUE_TIMEOUT: '60000', // Long: the wait is an estimate, which one slow hash makes too high.
  LOGIN_IP_RATE: '100000/60000',
  TOKEN_IP_RATE: '100000/60000',
  STREAM_TOKEN_USER_RATE: '100000/60000',
  STREAM_OPEN_IP_RATE: '100000/60000',
  STREAM_RETRY: '100',
  // Long, so that a server on a machine that stalls does not cut off its responses.
  DRAIN_TIMEOUT: '15000',
  END_TIMEOUT: '10000',
};

/** A database with accounts and an API key, created once per process and copied for every system. */
interface Seed {
  readonly folder: string;
  readonly userIds: Readonly<Record<Username, string>>;
  readonly apiKey: string;
}

/** What a server process or an `App` needs to start. */
export interface Prepared {
  readonly folder: string;
  readonly env: Env;
  readonly userIds: Readonly<Record<Username, string>>;
  readonly apiKey: string;
}

let seedPromise: Promise<Seed> | undefined;

/**
 * Creates a folder with a certificate and a seeded database, and returns settings that use them and a port
 * that stays free while the server is stopped. The caller removes the folder. If `extraEnv` has a
 * `DB_DIALECT`, the accounts are created in its database, which must be migrated.
 */
export async function prepare(extraEnv: Env = {}): Promise<Prepared> {
  const folder = mkdtempSync(join(tmpdir(), 'herald-'));
  const env = { ...extraEnv, PORT: extraEnv['PORT'] ?? String(await freePort()) };
  if (extraEnv['DB_DIALECT'] !== undefined) {
    const all = { ...buildEnv(folder), ...env };
    return { folder, env: all, ...(await createAccounts(all)) };
  }
  seedPromise ??= createSeed();
  const { folder: seedFolder, userIds, apiKey } = await seedPromise;
  for (const file of ['herald.db', 'herald.db-wal']) {
    if (existsSync(join(seedFolder, file)))
      copyFileSync(join(seedFolder, file), join(folder, file));
  }
  return { folder, userIds, apiKey, env: { ...buildEnv(folder), ...env } };
}

/** Writes the certificate; returns settings that keep all files in this folder. */
function buildEnv(folder: string): Env {
  const [certificate, privateKey] = [join(folder, 'server.cert'), join(folder, 'server.key')];
  writeFileSync(certificate, testCertificate.cert);
  writeFileSync(privateKey, testCertificate.key);
  return { ...baseEnv, DATA_DIR: folder, CERTIFICATE: certificate, PRIVATE_KEY: privateKey };
}

async function createSeed(): Promise<Seed> {
  const folder = mkdtempSync(join(tmpdir(), 'herald-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  return { folder, ...(await createAccounts(buildEnv(folder))) };
}

function createAccounts(env: Env): Promise<Omit<Seed, 'folder'>> {
  return withAccounts(loadConfig(env), async ({ accounts, apiKeys }) => {
    const ids: Partial<Record<Username, string>> = {};
    for (const username of usernames) {
      const names = { username, firstName: username, lastName: 'Test' };
      const { id } = await accounts.create({ ...names, password: getPassword(username) });
      ids[username] = id;
    }
    const { key } = await apiKeys.create({
      name: 'tests',
      scopes: ['publish', 'tickets', 'streams', 'disconnect', 'topics'],
      userPrefix: '',
    });
    recordSecret(key);
    for (const username of usernames) recordSecret(getPassword(username));
    return { userIds: ids as Record<Username, string>, apiKey: key }; // The loop has set all.
  });
}
