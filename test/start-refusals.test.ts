import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { createSelfSigned } from '../src/certificates/self-signed.js';
import { runSource, startSource, tempFolder, waitForExit } from './support/servers/process.js';
import { until } from './support/until.js';

const secret = 'hex:8f1d4c7be2a9036577d0c1b2a3948576e5f60718293a4b5c6d7e8f9001122334';

/** Valid settings for production. The certificate comes from `certificateEnv`. */
const validEnv = {
  NODE_ENV: 'production',
  HOST: '127.0.0.1',
  PORT: '0',
  ACCESS_TOKEN_SECRET: secret,
  ACCESS_TOKEN_ISSUER: 'https://herald.example',
  ACCESS_TOKEN_AUDIENCE: 'https://app.example',
};

const pem = (key: ReturnType<typeof generateKeyPairSync>['privateKey']) =>
  key.export({ type: 'pkcs8', format: 'pem' }) as string;

const { certificate, privateKey } = createSelfSigned(['localhost'], Date.now());
/** Content of the files in the working directory, by name. */
const files: Readonly<Record<string, string>> = {
  'server.cert': certificate,
  'server.key': privateKey,
  'rsa-1024.key': pem(generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey),
  'ec.key': pem(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey),
  'rubbish.key': 'not a key\n',
};

const certificateEnv = { CERTIFICATE: 'server.cert', PRIVATE_KEY: 'server.key' };

const asymmetric = (algorithm: string, file: string) => ({
  ACCESS_TOKEN_ALGORITHM: algorithm,
  ACCESS_TOKEN_PRIVATE_KEY_FILE: file,
});

// [fault, settings, messages]
const refusals: readonly [string, Record<string, string>, readonly RegExp[]][] = [
  [
    'no certificate',
    { CERTIFICATE: 'none.cert', PRIVATE_KEY: 'none.key' },
    [/- CERTIFICATE: none\.cert does not exist/, /- PRIVATE_KEY: none\.key does not exist/],
  ],
  [
    'a certificate but no key',
    { PRIVATE_KEY: 'none.key' },
    [/none\.key does not exist, although server\.cert exists/],
  ],
  [
    'TLS=off on all addresses and no proxy',
    { TLS: 'off', HOST: '0.0.0.0' },
    [/- TLS=off needs TRUST_PROXY_HOPS of 1 or more, .*, or HOST=localhost: /],
  ],
  [
    'a key that cannot be read',
    { PRIVATE_KEY: 'folder' },
    [/^Cannot read folder \(EISDIR\): check CERTIFICATE and PRIVATE_KEY$/m, /because: EISDIR/],
  ],
  [
    'an invalid database file',
    { DB_STORAGE: 'rubbish.key' },
    [/^Cannot open database .*rubbish\.key: it is not an SQLite/m],
  ],
  [
    'a short secret',
    { ACCESS_TOKEN_SECRET: 'x7'.repeat(15) },
    [/ACCESS_TOKEN_SECRET must have 32/],
  ],
  [
    'a secret of one repeated letter',
    { ACCESS_TOKEN_SECRET: 'x'.repeat(64) },
    [/ACCESS_TOKEN_SECRET must/],
  ],
  [
    'a secret copied from a manual',
    { ACCESS_TOKEN_SECRET: 'your-256-bit-secret-your-256-bit-secret' },
    [/ACCESS_TOKEN_SECRET must be random/],
  ],
  [
    'a secret too short for HS512',
    { ACCESS_TOKEN_ALGORITHM: 'HS512' },
    [/64 bytes or more for HS512/],
  ],
  [
    'a weak previous secret',
    { ACCESS_TOKEN_PREVIOUS_SECRETS: 'old' },
    [/PREVIOUS_SECRETS: secret 1/],
  ],
  ['a PEM file as secret', { ACCESS_TOKEN_SECRET: files['ec.key'] ?? '' }, [/not a PEM file/]],
  ['a short RSA key', asymmetric('RS256', 'rsa-1024.key'), [/an RSA key of 2048 bits or more/]],
  ['a key of another type', asymmetric('RS256', 'ec.key'), [/RS256 needs an RSA key/]],
  ['a key on another curve', asymmetric('ES384', 'ec.key'), [/ES384 needs an EC key/]],
  ['an invalid key', asymmetric('ES256', 'rubbish.key'), [/not an unencrypted PEM key/]],
  [
    'a private key for a symmetric algorithm',
    { ACCESS_TOKEN_PRIVATE_KEY_FILE: 'ec.key' },
    [/cannot be combined with HS256/],
  ],
  [
    'a hash that is too cheap',
    { ARGON2_MEMORY_KIB: '8192' },
    [/ARGON2_MEMORY_KIB must be 19456 or more/],
  ],
  [
    'nine faults',
    {
      ...{ ACCESS_TOKEN_SECRET: '', ACCESS_TOKEN_ISSUER: '', ACCESS_TOKEN_AUDIENCE: '' },
      ...{ ACCESS_TOKEN_ALGORITHM: 'none', ARGON2_TIME: '0', CORS_ORIGINS: '*', DB_DIALECT: 'x' },
      ...{ CERTIFICATE: 'none.cert', PRIVATE_KEY: 'none.key' },
    },
    [
      ...[/ACCESS_TOKEN_SECRET is required/, /ACCESS_TOKEN_ISSUER is/, /ACCESS_TOKEN_AUDIENCE is/],
      ...[
        /ACCESS_TOKEN_ALGORITHM must/,
        /ARGON2_TIME must/,
        /CORS_ORIGINS must/,
        /DB_DIALECT must/,
        /CERTIFICATE: none\.cert does not exist/,
        /PRIVATE_KEY: none\.key does not exist/,
      ],
    ],
  ],
];

for (const [what, env, messages] of refusals) {
  test(`a production server with ${what} does not start and prints the reason`, async (t) => {
    const cwd = tempFolder(t);
    for (const [name, content] of Object.entries(files)) writeFileSync(join(cwd, name), content);
    mkdirSync(join(cwd, 'folder'));

    const { code, out, err } = await runSource('server.ts', [], {
      cwd,
      env: { ...validEnv, ...certificateEnv, ...env },
    });

    assert.equal(code, 1);
    for (const message of messages) assert.match(err, message);
    assert.equal(/^\s+at /m.test(err), false, err);
    for (const value of Object.values(env)) {
      if (value.length >= 16) assert.equal(`${out}${err}`.includes(value), false);
    }
  });
}

// [what the setting names, setting, value, message]
const unusableFolders: readonly [string, string, string, RegExp][] = [
  [
    'a new folder in /proc',
    'LOG_PATH',
    '/proc/herald/logs',
    /Cannot open log in \/proc\/herald\/logs: E/,
  ],
  ['a file', 'LOG_PATH', 'server.key', /Cannot open log in .*server\.key: EEXIST; set LOG_PATH/],
  [
    'a full device',
    'LOG_PATH',
    '/dev/full',
    /Cannot open log in \/dev\/full: EEXIST; set LOG_PATH/,
  ],
  ['a folder with a folder combined.log', 'LOG_PATH', 'folder', /Cannot open log in .*: EISDIR/],
  ['a folder with a pipe that nobody reads', 'LOG_PATH', 'pipes', /Cannot open log in .*: ENXIO/],
  [
    'a folder in /proc',
    'DATA_DIR',
    '/proc/herald',
    /Cannot create \/proc\/herald: set DATA_DIR to/,
  ],
  [
    'a file in /proc',
    'DB_STORAGE',
    '/proc/herald/db',
    /Cannot open database \/proc\/herald\/db: ENOENT/,
  ],
];

for (const [what, setting, value, message] of unusableFolders) {
  test(`a server whose ${setting} is ${what} does not start and prints the reason`, {
    skip: process.platform === 'linux' ? false : 'this system has no /proc',
  }, async (t) => {
    const cwd = tempFolder(t);
    for (const [name, content] of Object.entries(files)) writeFileSync(join(cwd, name), content);
    mkdirSync(join(cwd, 'folder', 'combined.log'), { recursive: true });
    mkdirSync(join(cwd, 'pipes'));
    execFileSync('mkfifo', [join(cwd, 'pipes', 'combined.log')]);
    const env = { HOST: '127.0.0.1', PORT: '0', ...certificateEnv, [setting]: value };
    const child = startSource('server.ts', [], { cwd, env });

    const { code, err } = await waitForExit(child);

    assert.equal(code, 1, err);
    assert.match(err, message);
    assert.equal(/^\s+at /m.test(err), false, err);
  });
}

test('a server does not start when a worker thread does not load', async (t) => {
  const cwd = tempFolder(t);
  for (const [name, content] of Object.entries(files)) writeFileSync(join(cwd, name), content);
  const broken = join(cwd, 'broken.cjs');
  writeFileSync(
    broken,
    `if (require('node:worker_threads').workerData?.signingKey) throw new Error('broken here');`,
  );

  const { code, out, err } = await runSource('server.ts', [], {
    cwd,
    env: { ...validEnv, ...certificateEnv, NODE_OPTIONS: `--require ${broken}` },
  });

  assert.equal(code, 1);
  assert.match(err, /^Cannot open pool: a thread did not load$/m);
  assert.match(out, /broken here/); // The log says why.
  assert.equal(out.includes('"listening"'), false);
});

test('in production the server creates no demo user, secret or key, and the seed command fails', async (t) => {
  const cwd = tempFolder(t);
  for (const [name, content] of Object.entries(files)) writeFileSync(join(cwd, name), content);
  const env = { ...validEnv, ...certificateEnv };

  const seeded = await runSource('commands/seed.ts', [], { cwd, env });
  const child = startSource('server.ts', [], { cwd, env });
  t.after(() => child.kill('SIGKILL'));
  const ending = waitForExit(child);
  let printed = '';
  child.stdout.on('data', (text) => {
    printed += text;
  });
  await until(() => printed.includes('"listening"') || child.exitCode !== null);
  child.kill('SIGTERM');
  const { code, out, err } = await ending;
  const users = await runSource('commands/user.ts', ['list', '--json'], { cwd, env });

  assert.equal(seeded.code, 1);
  assert.match(seeded.err, /^Cannot seed: this is production/);
  assert.equal(code, 0, err);
  assert.equal(/demo|password/i.test(out), false);
  assert.deepEqual([users.code, users.out], [0, '']);
  assert.equal(existsSync(join(cwd, 'data', 'publish.key')), false);
  assert.equal(readdirSync(join(cwd, 'data')).includes('access-token.secret'), false);
});

for (const [what, code, create] of [
  ['a folder', 'EISDIR', (path: string) => mkdirSync(path)],
  ['a dangling link', 'ENOENT', (path: string) => symlinkSync('nothing', path)],
] as const) {
  test(`the server and commands report a .env that is ${what} without a stack trace and create nothing`, async (t) => {
    const cwd = tempFolder(t);
    create(join(cwd, '.env'));

    const server = await runSource('server.ts', [], { cwd });
    const command = await runSource('commands/user.ts', ['list'], { cwd });

    for (const { code: exitCode, err } of [server, command]) {
      assert.equal(exitCode, 1);
      assert.match(err, new RegExp(`^Cannot read \\.env: ${code}\n`));
      assert.equal(/^\s+at /m.test(err), false);
    }
    assert.deepEqual(readdirSync(cwd), ['.env']);
  });
}

test('the server and commands refuse malformed lines of .env by number, besides other problems, and do not print them', async (t) => {
  const cwd = tempFolder(t);
  const lines = [
    'ACCESS_TOKEN_SECRET hunter2',
    'PORT=many',
    '',
    'DB_NAME="hunter2',
    'LOG_LEVEL=loud',
  ];
  writeFileSync(join(cwd, '.env'), `${lines.join('\n')}\n`);

  const server = await runSource('server.ts', [], { cwd });
  const command = await runSource('commands/user.ts', ['list'], { cwd });

  for (const { code, err } of [server, command]) {
    assert.equal(code, 1);
    assert.match(err, /^Cannot start: 4 problem/);
    assert.match(err, /\n- \.env line 1 is not NAME=value\n/);
    assert.match(err, /\n- \.env line 4 is not NAME=value: its quote does not end\n/);
    assert.match(err, /\n- PORT must be/);
    assert.match(err, /\n- LOG_LEVEL must be/);
    assert.equal(err.includes('hunter2'), false);
  }
  assert.deepEqual(readdirSync(cwd), ['.env']);
});

test('environment variables take precedence over .env', async (t) => {
  const cwd = tempFolder(t);
  writeFileSync(join(cwd, '.env'), 'PORT=many\nLOG_LEVEL=loud\nDB_DIALECT=oracle\n');

  const { err } = await runSource('server.ts', [], { cwd, env: { PORT: '0', LOG_LEVEL: 'info' } });

  assert.match(err, /1 problem.*\n- DB_DIALECT must be/);
});

test('a misspelled setting is reported with a suggestion, whether the environment or .env sets it', async (t) => {
  const cwd = tempFolder(t);
  writeFileSync(join(cwd, '.env'), 'DRAIN_TIMOUT=1\nWEB_PORT=80\n');

  const { code, err } = await runSource('server.ts', [], { cwd, env: { LOG_LEVLE: 'info' } });

  assert.equal(code, 1);
  assert.match(err, /2 problem/);
  assert.match(err, /- DRAIN_TIMOUT is not a setting of Herald: did you mean DRAIN_TIMEOUT\?/);
  assert.match(err, /- LOG_LEVLE is not a setting of Herald: did you mean LOG_LEVEL\?/);
});

test('a variable that Node reads before .env is refused in .env, and the value in .env is not used', async (t) => {
  const cwd = tempFolder(t);
  writeFileSync(join(cwd, '.env'), 'UV_THREADPOOL_SIZE=9\nNODE_OPTIONS=--no-warnings\n');
  const env = { AUTH_WORKERS: '8', NODE_OPTIONS: '--no-deprecation' };

  const server = await runSource('server.ts', [], { cwd, env });
  const command = await runSource('commands/user.ts', ['list'], { cwd, env });

  for (const { code, err } of [server, command]) {
    assert.equal(code, 1);
    assert.match(err, /2 problem/); // NODE_OPTIONS is none, because the environment sets it, too.
    assert.match(err, /- AUTH_WORKERS must be below UV_THREADPOOL_SIZE, which is 4$/m);
    assert.match(err, /- UV_THREADPOOL_SIZE has no effect in \.env: set it in the environment/);
  }
});
