import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { tempFolder } from '../../test/support/servers/process.js';
import { Users } from '../auth/users.js';
import { type Config, ConfigError, loadConfig } from '../config/config.js';
import { controlEntryAppender } from '../event-log/open.js';
import { ApiKeys } from '../identity/api-keys.js';
import { silentLogger } from '../logging/logger.js';
import { withDatabase } from './database.js';
import { formatWelcome, prepareStart } from './first-start.js';

const production = {
  NODE_ENV: 'production',
  ACCESS_TOKEN_SECRET: 'hex:8f1d4c7be2a9036577d0c1b2a3948576e5f60718293a4b5c6d7e8f9001122334',
  ACCESS_TOKEN_AUDIENCE: 'test',
  ACCESS_TOKEN_ISSUER: 'test',
};

interface TestFolder {
  readonly folder: string;
  configWith(env?: Record<string, string>): Config;
}

/** Creates an empty folder, as if Herald had never been started in it. */
function createTestFolder(t: TestContext): TestFolder {
  const folder = tempFolder(t);
  const paths = {
    DATA_DIR: join(folder, 'data'),
    CERTIFICATE: join(folder, 'certificate', 'server.cert'),
    PRIVATE_KEY: join(folder, 'certificate', 'server.key'),
    LOG_PATH: join(folder, 'logs'),
  };
  const cheapHashing = { ARGON2_ALLOW_WEAK: 'true', ARGON2_MEMORY_KIB: '7168', ARGON2_TIME: '1' };
  return { folder, configWith: (env = {}) => loadConfig({ ...paths, ...cheapHashing, ...env }) };
}

const noEnvFile = { hasEnvFile: false };

const countUsersAndKeys = (config: Config) =>
  withDatabase(config, silentLogger, async (db) => ({
    users: (await new Users({ db }).list()).length,
    keys: (
      await new ApiKeys({
        db,
        log: silentLogger,
        appendControlEntries: controlEntryAppender(db, Date.now),
      }).list()
    ).length,
  }));

test('a first start creates everything that Herald needs and lists it', async (t) => {
  const { folder, configWith } = createTestFolder(t);

  const preparation = await prepareStart(configWith(), noEnvFile);

  const text = formatWelcome(preparation, 'https://localhost:9001');
  for (const part of ['server.cert', 'server.key', 'access-token.secret', 'herald.db']) {
    assert.ok(text.includes(part), part);
  }
  assert.match(text, /Demo user +test, with password test/);
  assert.match(text, /Herald serves https:\/\/localhost:9001, for development/);
  assert.match(text, /https:\/\/localhost:9001\/events --header "Authorization: Bearer \$\(cat /);
  assert.deepEqual(await countUsersAndKeys(preparation.config), { users: 1, keys: 1 });
  const data = readdirSync(join(folder, 'data')).map((name) => `data/${name}`);
  assert.ok(data.includes('data/herald.db.lock'));
  for (const name of ['certificate/server.key', ...data]) {
    assert.equal(statSync(join(folder, name)).mode & 0o777, 0o600, name);
  }
  assert.equal(statSync(join(folder, 'data')).mode & 0o777, 0o700);
});

test('the key in the publish key file publishes and mints tickets, for any user', async (t) => {
  const { config, publishKeyFile } = await prepareStart(
    createTestFolder(t).configWith(),
    noEnvFile,
  );

  const text = readFileSync(publishKeyFile ?? '', 'utf8').trim();
  const key = await withDatabase(config, silentLogger, (db) =>
    new ApiKeys({
      db,
      log: silentLogger,
      appendControlEntries: controlEntryAppender(db, Date.now),
    }).verify(text),
  );

  assert.ok(typeof key === 'object');
  assert.deepEqual([key.scopes, key.userPrefix], [['publish', 'tickets', 'topics'], '']);
});

test('a second start creates nothing, keeps the secret, and still prints how to try Herald', async (t) => {
  const { configWith } = createTestFolder(t);
  const first = await prepareStart(configWith(), noEnvFile);

  const second = await prepareStart(configWith(), noEnvFile);

  assert.deepEqual(second.created, []);
  assert.deepEqual(second.config.accessToken.secret, first.config.accessToken.secret);
  assert.match(formatWelcome(second, 'https://localhost:1'), /^Herald serves[\s\S]*publish\.key/);
  assert.deepEqual(await countUsersAndKeys(second.config), { users: 1, keys: 1 });
});

// [condition, environment, does .env exist]
const withoutDemo = [
  ['.env exists', {}, true],
  ['the server listens on all addresses', { HOST: '0.0.0.0' }, false],
  ['a proxy is configured', { TRUST_PROXY_HOPS: '1' }, false],
  ['CORS origins are configured', { CORS_ORIGINS: 'https://app.example.com' }, false],
  ['a secret is configured', { ACCESS_TOKEN_SECRET: production.ACCESS_TOKEN_SECRET }, false],
  ['the database is on a database server', { DB_DIALECT: 'postgres' }, false],
] as const;

for (const [when, env, hasEnvFile] of withoutDemo) {
  test(`a first start creates no demo user and no key when ${when}`, async (t) => {
    const { configWith } = createTestFolder(t);

    const { config, created, publishKeyFile } = await prepareStart(configWith(env), { hasEnvFile });

    assert.equal(publishKeyFile, undefined);
    const names = created.map((line) => line.split('  ')[0]);
    const secret = 'ACCESS_TOKEN_SECRET' in env ? [] : ['Secret'];
    assert.deepEqual(names, ['Certificate', 'Private key', ...secret]);
    assert.ok(config.accessToken.secret !== undefined);
    assert.equal(existsSync(join(config.dataFolder, 'publish.key')), false);
    assert.equal(existsSync(config.database.file), false);
  });
}

test('a first start without TLS creates no certificate, no demo user and no key', async (t) => {
  const { configWith } = createTestFolder(t);

  const preparation = await prepareStart(configWith({ TLS: 'off' }), noEnvFile);

  const { config, created, publishKeyFile } = preparation;
  assert.deepEqual([created.length, publishKeyFile], [1, undefined]);
  assert.match(created[0] ?? '', /^Secret /);
  assert.equal(existsSync(config.http.certificateFile), false);
  assert.match(
    formatWelcome(preparation, 'http://localhost:9001'),
    /^Created:\n {2}Secret .*\n\nHerald serves http:\/\/localhost:9001, for development\.$/,
  );
});

test('a start in production without TLS needs no certificate', async (t) => {
  const { folder, configWith } = createTestFolder(t);

  const { created } = await prepareStart(configWith({ ...production, TLS: 'off' }), noEnvFile);

  assert.deepEqual(created, []);
  assert.deepEqual(readdirSync(folder), []);
});

test('a start creates no second demo user and key when the key file was deleted', async (t) => {
  const { folder, configWith } = createTestFolder(t);
  await prepareStart(configWith(), noEnvFile);
  rmSync(join(folder, 'data', 'publish.key'));

  const { config, publishKeyFile } = await prepareStart(configWith(), noEnvFile);

  assert.equal(publishKeyFile, undefined);
  assert.deepEqual(await countUsersAndKeys(config), { users: 1, keys: 1 });
});

test('a start uses a configured secret and generates no file for it', async (t) => {
  const { folder, configWith } = createTestFolder(t);
  const secret = production.ACCESS_TOKEN_SECRET;
  await prepareStart(configWith(), noEnvFile);
  rmSync(join(folder, 'data', 'access-token.secret'));

  const { config, created } = await prepareStart(
    configWith({ ACCESS_TOKEN_SECRET: secret }),
    noEnvFile,
  );

  assert.equal(config.accessToken.secret?.toString('hex'), secret.slice(4));
  assert.deepEqual(created, []);
  assert.equal(existsSync(join(folder, 'data', 'access-token.secret')), false);
});

test('a start in production generates nothing and lists the missing files', async (t) => {
  const { folder, configWith } = createTestFolder(t);

  const starting = prepareStart(configWith(production), noEnvFile);

  await assert.rejects(starting, (error) => {
    assert.ok(error instanceof ConfigError);
    const [certificate = '', key = '', ...others] = error.problems;
    assert.match(certificate, /^CERTIFICATE: .*server\.cert does not exist$/);
    assert.match(key, /^PRIVATE_KEY: .*server\.key does not exist$/);
    assert.deepEqual(others, []);
    return true;
  });
  assert.deepEqual(readdirSync(folder), []);
});

test('the welcome text is empty in production', async (t) => {
  const { configWith } = createTestFolder(t);
  await prepareStart(configWith(), noEnvFile); // Creates a certificate.

  const preparation = await prepareStart(configWith(production), noEnvFile);

  assert.equal(preparation.publishKeyFile, undefined);
  assert.equal(formatWelcome(preparation, 'https://localhost:1'), '');
});

test('a start is refused when only the certificate or only its private key exists', async (t) => {
  const halves = [
    [
      'server.cert',
      /^- CERTIFICATE: .*server\.cert does not exist, although .*server\.key exists$/m,
    ],
    [
      'server.key',
      /^- PRIVATE_KEY: .*server\.key does not exist, although .*server\.cert exists$/m,
    ],
  ] as const;
  for (const [half, message] of halves) {
    const { folder, configWith } = createTestFolder(t);
    await prepareStart(configWith(), noEnvFile);
    rmSync(join(folder, 'certificate', half));

    const starting = prepareStart(configWith(), noEnvFile);

    await assert.rejects(starting, message);
  }
});

test('a start with a damaged generated secret is refused with a remedy', async (t) => {
  const { folder, configWith } = createTestFolder(t);
  await prepareStart(configWith(), noEnvFile);
  writeFileSync(join(folder, 'data', 'access-token.secret'), 'AAAA');

  const starting = prepareStart(configWith(), noEnvFile);

  await assert.rejects(
    starting,
    /access-token\.secret must have 32 bytes .*; delete it to generate/,
  );
});

test('a start with an unreadable generated secret is refused with its path and a remedy', async (t) => {
  const { folder, configWith } = createTestFolder(t);
  mkdirSync(join(folder, 'data', 'access-token.secret'), { recursive: true });

  const starting = prepareStart(configWith(), noEnvFile);

  await assert.rejects(
    starting,
    /^CommandError: Cannot read .*\.secret \(EISDIR\): .*set DATA_DIR$/,
  );
});
