import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseEnv } from 'node:util';
import { tempFolder } from '../../test/support/servers/process.js';
import { ConfigError, loadConfig, settingNames } from './config.js';

const secret = 'Xq7-fw2Kd91mZ_bVn40tRyLs8EhGc3Pu';
const hex = Buffer.from(secret).toString('hex');
const base64 = Buffer.from(secret).toString('base64');
const inProduction = {
  NODE_ENV: 'production',
  ACCESS_TOKEN_SECRET: secret,
  ACCESS_TOKEN_ISSUER: 'https://id.example.com',
  ACCESS_TOKEN_AUDIENCE: 'example',
};

function getProblems(env: Record<string, string>, readFile?: (path: string) => string) {
  try {
    loadConfig(env, readFile === undefined ? {} : { readFile });
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.problems;
  }
  return [];
}

test('an empty environment gives the defaults, and they are frozen throughout', () => {
  const config = loadConfig({});

  assert.equal(config.http.port, 9001);
  assert.equal(config.database.dialect, 'sqlite');
  assert.equal(config.accessToken.secret, undefined);
  assert.equal(config.stream.heartbeatMs, 15_000);
  assert.ok(Object.isFrozen(config.http.limits));
});

test('.env.example lists exactly the settings that are read', () => {
  const listed = Object.keys(parseEnv(readFileSync('.env.example', 'utf8')));

  assert.deepEqual(listed.toSorted(), settingNames().toSorted());
});

test('.env.example gives the same settings as an empty environment', () => {
  const example = parseEnv(readFileSync('.env.example', 'utf8'));

  assert.deepEqual(loadConfig(example), loadConfig({}));
});

test('all streams of one address may come back at once, and once more, and refresh', () => {
  const { rates, stream } = loadConfig({});

  assert.ok(rates.streamOpen.count >= 2 * stream.perIpMax);
  assert.ok(rates.token.count >= 2 * stream.perIpMax);
  assert.ok(rates.streamToken.count >= 2 * stream.perUserMax);
});

test('more hashing threads go with a larger pool of Node', () => {
  const env = { AUTH_WORKERS: '8', UV_THREADPOOL_SIZE: '9' };

  assert.equal(loadConfig(env).authThreads.count, 8);
  assert.equal(loadConfig({ AUTH_WORKERS: '3' }).authThreads.count, 3);
});

test('an empty value means the default', () => {
  assert.equal(loadConfig({ PORT: '', HOST: '  ' }).http.port, 9001);
});

test('all problems are reported at once', () => {
  const problems = getProblems({
    PORT: 'many',
    DB_DIALECT: 'oracle',
    ACCESS_TOKEN_EXPIRES_IN: '5',
  });

  assert.equal(problems.length, 3);
});

test('production makes nothing up', () => {
  const problems = getProblems({ NODE_ENV: 'production' }).join('\n');

  assert.match(problems, /ACCESS_TOKEN_SECRET is required/);
  assert.match(problems, /ACCESS_TOKEN_ISSUER is required/);
  assert.match(problems, /ACCESS_TOKEN_AUDIENCE is required/);
  assert.deepEqual(getProblems(inProduction), []);
});

test('a missing secret is asked for by algorithm, and with key pairs, too', () => {
  const secretProblems = (algorithm: string) =>
    getProblems({ NODE_ENV: 'production', ACCESS_TOKEN_ALGORITHM: algorithm }).filter((it) =>
      it.startsWith('ACCESS_TOKEN_SECRET '),
    );

  assert.deepEqual(secretProblems('HS512'), [
    'ACCESS_TOKEN_SECRET is required: 64 random bytes or more',
  ]);
  assert.deepEqual(secretProblems('ES256'), [
    'ACCESS_TOKEN_SECRET is required, also with ES256, for the refresh tokens: 32 random bytes or more',
  ]);
});

// [what is wrong, the settings, the problem]
const refusals: readonly [string, Record<string, string>, RegExp][] = [
  ['a port below 0', { PORT: '-1' }, /^PORT must be a whole number, 0 to 65535$/],
  ['a port above 65535', { PORT: '65536' }, /^PORT must be/],
  ['a number with a unit', { ACCESS_TOKEN_EXPIRES_IN: '1h' }, /^ACCESS_TOKEN_EXPIRES_IN must be/],
  ['a number beyond 2^53', { EVENT_LOG_MAX_BYTES: '9007199254740993' }, /^EVENT_LOG_MAX_BYTES/],
  ['hexadecimal', { PORT: '0x50' }, /^PORT must be/],
  ['an unknown dialect', { DB_DIALECT: 'oracle' }, /one of sqlite, postgres, mariadb, mysql/],
  ['an unknown algorithm', { ACCESS_TOKEN_ALGORITHM: 'none' }, /^ACCESS_TOKEN_ALGORITHM must be/],
  ['a flag that is none', { DB_PREPARE: 'yes' }, /^DB_PREPARE must be one of true, false$/],
  ['a short secret', { ACCESS_TOKEN_SECRET: 'short' }, /^ACCESS_TOKEN_SECRET /],
  ['a short secret for HS512', { ...inProduction, ACCESS_TOKEN_ALGORITHM: 'HS512' }, /SECRET /],
  ['a secret twice', { ACCESS_TOKEN_SECRET: secret, ACCESS_TOKEN_SECRET_FILE: 's' }, /both set/],
  ['too many old secrets', { ACCESS_TOKEN_PREVIOUS_SECRETS: 'a,b,c,d' }, /3 secrets at most/],
  [
    'a weak old secret',
    { ACCESS_TOKEN_PREVIOUS_SECRETS: 'short' },
    /^ACCESS_TOKEN_PREVIOUS_SECRETS: one must have/,
  ],
  ['RS256 without its key', { ACCESS_TOKEN_ALGORITHM: 'RS256' }, /PRIVATE_KEY_FILE is required/],
  ['HS256 with a key', { ACCESS_TOKEN_PRIVATE_KEY_FILE: 'k' }, /cannot be combined with HS256/],
  ['a weak argon2', { ARGON2_MEMORY_KIB: '8192' }, /^ARGON2_MEMORY_KIB must be 19456 or more/],
  [
    'an authority without TLS',
    { DB_SSL_CA_FILE: 'ca' },
    /^DB_SSL_CA_FILE cannot be combined with DB_SSL/,
  ],
  ['a rate without a time', { LOGIN_IP_RATE: '30' }, /^LOGIN_IP_RATE must be <count>\/<millisec/],
  ['hashes in all of the pool of Node', { AUTH_WORKERS: '4' }, /^AUTH_WORKERS must be below UV_/],
  [
    'hashes in all of a larger pool',
    { AUTH_WORKERS: '8', UV_THREADPOOL_SIZE: '8' },
    /^AUTH_WORKERS must be below UV_THREADPOOL_SIZE, which is 8$/,
  ],
  ['more proxies than anybody has', { TRUST_PROXY_HOPS: '11' }, /^TRUST_PROXY_HOPS must be/],
  ['proxies by yes and no', { TRUST_PROXY_HOPS: 'true' }, /^TRUST_PROXY_HOPS must be a whole/],
  ['fewer proxies than none', { TRUST_PROXY_HOPS: '-1' }, /^TRUST_PROXY_HOPS must be/],
  ['a rate of nothing', { TOKEN_IP_RATE: '0/60000' }, /^TOKEN_IP_RATE must be <count>/],
  ['a rate with a unit', { STREAM_TOKEN_USER_RATE: '60/1m' }, /^STREAM_TOKEN_USER_RATE must be/],
  ['a rate of three', { STREAM_OPEN_IP_RATE: '9/1000/1' }, /^STREAM_OPEN_IP_RATE must be <count>/],
  ['an origin with a path', { CORS_ORIGINS: 'https://a.example/x' }, /^CORS_ORIGINS must list/],
  ['any origin', { CORS_ORIGINS: '*' }, /^CORS_ORIGINS must list/],
  ['a pepper without version', { PASSWORD_PEPPER: 'YWJj' }, /^PASSWORD_PEPPER must be <version>/],
  [
    'a secret of hex with a slip in it',
    { ACCESS_TOKEN_SECRET: `hex:${hex}x${hex}` },
    /^ACCESS_TOKEN_SECRET must be valid hex on one line$/,
  ],
  ['half a byte of hex', { ACCESS_TOKEN_SECRET: `hex:${hex}0` }, /SECRET must be valid hex/],
  [
    'a secret of base64 in two lines',
    { ACCESS_TOKEN_SECRET: `base64:${base64}\n${base64}` },
    /^ACCESS_TOKEN_SECRET must be valid base64/,
  ],
  [
    'an old secret with a slip in it',
    { ACCESS_TOKEN_PREVIOUS_SECRETS: `base64:${base64}!` },
    /^ACCESS_TOKEN_PREVIOUS_SECRETS must be valid base64/,
  ],
  [
    'a pepper with a slip',
    { PASSWORD_PEPPER: `1:${base64}!` },
    /^PASSWORD_PEPPER must be <version>/,
  ],
  ['a pepper of three', { PASSWORD_PEPPER: `1:${base64}:x` }, /^PASSWORD_PEPPER must be <version>/],
  ['a misspelled name', { ACCESS_TOKEN_EXPIRE_IN: '5000' }, /EXPIRE_IN is not a setting of Herald/],
  ['a misspelled pepper', { PASSWORD_PEPER: '1:x' }, /^PASSWORD_PEPER is not a setting of Herald/],
  ['a misspelled port', { DB_PORTS: '5432' }, /^DB_PORTS is not a setting of Herald/],
  ['the address of a service for a port', { DB_PORT: 'tcp://10.0.0.7:5432' }, /^DB_PORT must be/],
  ['misspelled proxies', { TRUST_PROXY_HOP: '1' }, /^TRUST_PROXY_HOP is not a setting of Herald/],
  [
    'a session that ends before it ends',
    { REFRESH_TOKEN_ABSOLUTE_EXPIRES_IN: '1000' },
    /^REFRESH_TOKEN_ABSOLUTE_EXPIRES_IN must not be below/,
  ],
  [
    'a heartbeat too seldom to keep a connection',
    { STREAM_HEARTBEAT: '31000' },
    /^IDLE_TIMEOUT must be at least twice STREAM_HEARTBEAT$/,
  ],
  [
    'a hard limit below the soft one',
    { STREAM_UNSENT_SOFT: '1048576' },
    /^STREAM_UNSENT_HARD must be at least/,
  ],
];

for (const [what, env, problem] of refusals) {
  test(`${what} is refused with the name of the setting`, () => {
    const problems = getProblems(env, () => 'content');

    assert.ok(
      problems.some((line) => problem.test(line)),
      problems.join('\n') || 'no problem',
    );
  });
}

const day = 86_400_000;
/** Durations, and what is the longest. */
const longest: Readonly<Record<string, number>> = {
  ...{ HANDSHAKE_TIMEOUT: 5 * day, HEADERS_TIMEOUT: 5 * day, BODY_TIMEOUT: 5 * day },
  ...{ IDLE_TIMEOUT: 5 * day, END_TIMEOUT: 5 * day, CLEANUP_INTERVAL: 5 * day },
  ...{ DB_CONNECT_TIMEOUT: 5 * day, DB_STATEMENT_TIMEOUT: 5 * day },
  ...{ DRAIN_DELAY: 600_000, DRAIN_TIMEOUT: 600_000, AUTH_QUEUE_TIMEOUT: 60_000 },
  ...{ STREAM_HEARTBEAT: 300_000, STREAM_STALL_TIMEOUT: 600_000, STREAM_RETRY: 60_000 },
  ...{ REFRESH_TOKEN_GRACE: 60_000, ACCESS_TOKEN_CLOCK_TOLERANCE: 300_000 },
  ...{ ACCESS_TOKEN_EXPIRES_IN: 36_525 * day, STREAM_TOKEN_EXPIRES_IN: 36_525 * day },
  ...{ REFRESH_TOKEN_EXPIRES_IN: 36_525 * day, REFRESH_TOKEN_ABSOLUTE_EXPIRES_IN: 36_525 * day },
  ...{ STREAM_RESUME_WINDOW: 36_525 * day, EVENT_LOG_MAX_AGE: 36_525 * day },
  ...{ LOGIN_MAX_DELAY: 36_525 * day },
};
const allLongest = Object.fromEntries(
  Object.entries(longest).map(([name, ms]) => [name, String(ms)]),
);

test('every duration may be as long as it may be', () => {
  assert.deepEqual(getProblems({ ...allLongest }), []);
});

for (const [name, ms] of Object.entries(longest)) {
  test(`${name} beyond ${ms} ms is refused, for it would mean something else`, () => {
    const [problem] = getProblems({ ...allLongest, [name]: String(ms + 1) });

    assert.match(problem ?? 'no problem', new RegExp(`^${name} must be .* to ${ms}$`));
  });
}

test('each setting that counts milliseconds has a longest', () => {
  const durations =
    /(TIMEOUT|EXPIRES_IN|INTERVAL|DELAY|WINDOW|_AGE|GRACE|TOLERANCE|HEARTBEAT|RETRY)$/;

  const names = settingNames().filter((name) => durations.test(name));

  assert.deepEqual(names.toSorted(), Object.keys(longest).toSorted());
});

test('what Kubernetes and Docker set for a service beside Herald is no slip of the pen', () => {
  const links = {
    ...{ DB_SERVICE_HOST: '10.0.0.7', DB_SERVICE_PORT: '5432', DB_SERVICE_PORT_PG: '5432' },
    ...{ DB_PORT_5432_TCP: 'tcp://10.0.0.7:5432', DB_PORT_5432_TCP_ADDR: '10.0.0.7' },
    ...{ STREAM_API_SERVICE_HOST: '10.0.0.8', STREAM_API_PORT: 'tcp://10.0.0.8:80' },
  };

  assert.deepEqual(getProblems(links), []);
});

test('a file that cannot be read is a problem of the setting that names it', () => {
  const problems = getProblems({ ACCESS_TOKEN_SECRET_FILE: '/nowhere/secret' });

  assert.match(
    problems.join(),
    /^ACCESS_TOKEN_SECRET_FILE names a file that cannot be read \(ENOENT\)/,
  );
});

test('a secret may come from a file, as text, base64 or hex', () => {
  const bytes = Buffer.from(secret);
  const given = [secret, `base64:${base64}`, `hex:${hex}`, `hex:${hex.toUpperCase()}`];
  given.push(`base64:${bytes.toString('base64url')}`);

  for (const content of given) {
    const readFile = () => `${content}\n`;
    const config = loadConfig({ ACCESS_TOKEN_SECRET_FILE: 'secret' }, { readFile });
    assert.deepEqual(config.accessToken.secret, bytes);
  }
});

test('random bytes in a file are refused, for as text they would be half as many', (t) => {
  const file = join(tempFolder(t), 'secret');
  writeFileSync(file, createHash('sha512').update('any').digest());

  for (const name of ['ACCESS_TOKEN_SECRET', 'DB_PASSWORD']) {
    const problems = getProblems({ [`${name}_FILE`]: file });
    assert.deepEqual(problems, [`${name} must be text in UTF-8, not bytes`]);
  }
});

test('problems never show a value that may be a secret', () => {
  const problems = getProblems({ ACCESS_TOKEN_SECRET: 'hunter2', PASSWORD_PEPPER: 'hunter2' });

  assert.doesNotMatch(problems.join('\n'), /hunter2/);
});
