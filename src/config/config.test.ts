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

test('loadConfig returns deeply frozen defaults for an empty environment', () => {
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

test('each default rate allows a burst of two requests per permitted stream of an address or a user', () => {
  const { rates, stream } = loadConfig({});

  assert.ok(rates.streamOpen.count >= 2 * stream.perIpMax);
  assert.ok(rates.token.count >= 2 * stream.perIpMax);
  assert.ok(rates.streamToken.count >= 2 * stream.perUserMax);
});

test('a larger libuv pool allows more auth threads', () => {
  const env = { AUTH_WORKERS: '8', UV_THREADPOOL_SIZE: '9' };

  assert.equal(loadConfig(env).authThreads.count, 8);
  assert.equal(loadConfig({ AUTH_WORKERS: '3' }).authThreads.count, 3);
});

test('an empty setting has its default value', () => {
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

test('in production a missing secret, issuer or audience is reported', () => {
  const problems = getProblems({ NODE_ENV: 'production' }).join('\n');

  assert.match(problems, /ACCESS_TOKEN_SECRET is required/);
  assert.match(problems, /ACCESS_TOKEN_ISSUER is required/);
  assert.match(problems, /ACCESS_TOKEN_AUDIENCE is required/);
  assert.deepEqual(getProblems(inProduction), []);
});

test('in production a missing secret is reported with its minimum length, also for asymmetric algorithms', () => {
  const secretProblems = (algorithm: string) =>
    getProblems({ NODE_ENV: 'production', ACCESS_TOKEN_ALGORITHM: algorithm }).filter((problem) =>
      problem.startsWith('ACCESS_TOKEN_SECRET '),
    );

  assert.deepEqual(secretProblems('HS512'), [
    'ACCESS_TOKEN_SECRET is required: 64 random bytes or more',
  ]);
  assert.deepEqual(secretProblems('ES256'), [
    'ACCESS_TOKEN_SECRET is required, also with ES256, for the refresh tokens: 32 random bytes or more',
  ]);
});

// [description, settings, problem]
const refusals: readonly [string, Record<string, string>, RegExp][] = [
  ['a port below 0', { PORT: '-1' }, /^PORT must be a whole number, 0 to 65535$/],
  ['a port above 65535', { PORT: '65536' }, /^PORT must be/],
  ['a number with a unit', { ACCESS_TOKEN_EXPIRES_IN: '1h' }, /^ACCESS_TOKEN_EXPIRES_IN must be/],
  ['a number above 2^53', { EVENT_LOG_MAX_BYTES: '9007199254740993' }, /^EVENT_LOG_MAX_BYTES/],
  ['a hexadecimal number', { PORT: '0x50' }, /^PORT must be/],
  ['an unknown dialect', { DB_DIALECT: 'oracle' }, /one of sqlite, postgres, mariadb, mysql/],
  ['an unknown algorithm', { ACCESS_TOKEN_ALGORITHM: 'none' }, /^ACCESS_TOKEN_ALGORITHM must be/],
  ['an invalid flag', { DB_PREPARE: 'yes' }, /^DB_PREPARE must be one of true, false$/],
  ['a short secret', { ACCESS_TOKEN_SECRET: 'short' }, /^ACCESS_TOKEN_SECRET /],
  ['a short secret for HS512', { ...inProduction, ACCESS_TOKEN_ALGORITHM: 'HS512' }, /SECRET /],
  [
    'a secret set twice',
    { ACCESS_TOKEN_SECRET: secret, ACCESS_TOKEN_SECRET_FILE: 's' },
    /both set/,
  ],
  ['too many previous secrets', { ACCESS_TOKEN_PREVIOUS_SECRETS: 'a,b,c,d' }, /3 secrets at most/],
  [
    'a weak previous secret',
    { ACCESS_TOKEN_PREVIOUS_SECRETS: 'short' },
    /^ACCESS_TOKEN_PREVIOUS_SECRETS: secret \d must have/,
  ],
  [
    'RS256 without a private key',
    { ACCESS_TOKEN_ALGORITHM: 'RS256' },
    /PRIVATE_KEY_FILE is required/,
  ],
  [
    'HS256 with a private key',
    { ACCESS_TOKEN_PRIVATE_KEY_FILE: 'k' },
    /cannot be combined with HS256/,
  ],
  [
    'too little memory for argon2',
    { ARGON2_MEMORY_KIB: '8192' },
    /^ARGON2_MEMORY_KIB must be 19456 or more/,
  ],
  [
    'a CA file without TLS',
    { DB_SSL_CA_FILE: 'ca' },
    /^DB_SSL_CA_FILE cannot be combined with DB_SSL/,
  ],
  [
    'TLS over a socket',
    { DB_SSL: 'verify', DB_HOST: '/run/mysqld/mysqld.sock' },
    /^DB_SSL=verify cannot be combined with a socket in DB_HOST/,
  ],
  ['a rate without a time', { LOGIN_IP_RATE: '30' }, /^LOGIN_IP_RATE must be <count>\/<millisec/],
  [
    'auth threads that fill the libuv pool',
    { AUTH_WORKERS: '4' },
    /^AUTH_WORKERS must be below UV_/,
  ],
  [
    'a libuv pool of invalid size',
    { UV_THREADPOOL_SIZE: 'many' },
    /UV_THREADPOOL_SIZE, which is 1$/,
  ],
  [
    'a token type of two words',
    { ACCESS_TOKEN_TYPE: 'Bearer token' },
    /^ACCESS_TOKEN_TYPE must be/,
  ],
  ['a token type with a comma', { ACCESS_TOKEN_TYPE: 'Bearer,' }, /^ACCESS_TOKEN_TYPE must be/],
  [
    'a token type with a quote',
    { ACCESS_TOKEN_TYPE: '"Bearer"' },
    /must be one word, such as Bearer$/,
  ],
  [
    'a token type of two lines',
    { ACCESS_TOKEN_TYPE: 'Bearer\r\nx:' },
    /^ACCESS_TOKEN_TYPE must be/,
  ],
  ['a token type with an accent', { ACCESS_TOKEN_TYPE: 'Béarer' }, /^ACCESS_TOKEN_TYPE must be/],
  [
    'zero wrong passwords before delays',
    { LOGIN_FREE_FAILURES: '0' },
    /^LOGIN_FREE_FAILURES must be .* 1 to 19$/,
  ],
  [
    'twenty wrong passwords before delays',
    { LOGIN_FREE_FAILURES: '20' },
    /^LOGIN_FREE_FAILURES must be .* 1 to 19$/,
  ],
  [
    'a previous secret with a comma',
    { ACCESS_TOKEN_PREVIOUS_SECRETS: `${secret.slice(0, 20)},${secret.slice(20)}` },
    /PREVIOUS_SECRETS: secret 2 must have 32 bytes .*; commas separate secrets, so give one .* base64:… or hex:…$/,
  ],
  ['a UUID as secret', { ACCESS_TOKEN_SECRET: 'c2d29867-3d0b-4497-9191-18a9d8ee7830' }, /128 bits/],
  [
    'a pepper of zeros',
    { PASSWORD_PEPPER: `1:${'A'.repeat(22)}==` },
    /^PASSWORD_PEPPER must be random/,
  ],
  [
    'a previous pepper that is a sentence',
    {
      PASSWORD_PEPPER_PREVIOUS: `1:${Buffer.from('a pepper for our passwords').toString('base64')}`,
    },
    /^PASSWORD_PEPPER_PREVIOUS must be random/,
  ],
  [
    'auth threads that fill a larger libuv pool',
    { AUTH_WORKERS: '8', UV_THREADPOOL_SIZE: '8' },
    /^AUTH_WORKERS must be below UV_THREADPOOL_SIZE, which is 8$/,
  ],
  ['too many proxy hops', { TRUST_PROXY_HOPS: '11' }, /^TRUST_PROXY_HOPS must be/],
  ['proxy hops given as a flag', { TRUST_PROXY_HOPS: 'true' }, /^TRUST_PROXY_HOPS must be a whole/],
  ['a negative number of proxy hops', { TRUST_PROXY_HOPS: '-1' }, /^TRUST_PROXY_HOPS must be/],
  ['an unknown value of TLS', { TLS: 'false' }, /^TLS must be one of on, off$/],
  [
    'TLS=off on all addresses without a proxy',
    { TLS: 'off', HOST: '0.0.0.0' },
    /^TLS=off needs TRUST_PROXY_HOPS of 1 or more, .* or HOST=localhost: /,
  ],
  ['TLS=off on a host name without a proxy', { TLS: 'off', HOST: '127.example' }, /^TLS=off needs/],
  ['TLS=off on IPv6 without a proxy', { TLS: 'off', HOST: '::' }, /^TLS=off needs/],
  ['a rate of zero', { TOKEN_IP_RATE: '0/60000' }, /^TOKEN_IP_RATE must be <count>/],
  ['a rate with a unit', { STREAM_TOKEN_USER_RATE: '60/1m' }, /^STREAM_TOKEN_USER_RATE must be/],
  [
    'a rate with three parts',
    { STREAM_OPEN_IP_RATE: '9/1000/1' },
    /^STREAM_OPEN_IP_RATE must be <count>/,
  ],
  ['a pepper without version', { PASSWORD_PEPPER: 'YWJj' }, /^PASSWORD_PEPPER must be <version>/],
  [
    'a hex secret with an invalid character',
    { ACCESS_TOKEN_SECRET: `hex:${hex}x${hex}` },
    /^ACCESS_TOKEN_SECRET must be valid hex on one line$/,
  ],
  [
    'a hex secret with an odd number of digits',
    { ACCESS_TOKEN_SECRET: `hex:${hex}0` },
    /SECRET must be valid hex/,
  ],
  [
    'a base64 secret on two lines',
    { ACCESS_TOKEN_SECRET: `base64:${base64}\n${base64}` },
    /^ACCESS_TOKEN_SECRET must be valid base64/,
  ],
  [
    'a previous secret with an invalid character',
    { ACCESS_TOKEN_PREVIOUS_SECRETS: `base64:${base64}!` },
    /^ACCESS_TOKEN_PREVIOUS_SECRETS must be valid base64/,
  ],
  [
    'a pepper with an invalid character',
    { PASSWORD_PEPPER: `1:${base64}!` },
    /^PASSWORD_PEPPER must be <version>/,
  ],
  [
    'a pepper with three parts',
    { PASSWORD_PEPPER: `1:${base64}:x` },
    /^PASSWORD_PEPPER must be <version>/,
  ],
  [
    'a misspelled name',
    { DRAIN_TIMOUT: '5' },
    /^DRAIN_TIMOUT is .*: did you mean DRAIN_TIMEOUT\?$/,
  ],
  ['an unknown name', { DB_POOL: '5' }, /^DB_POOL is not a setting of Herald: see \.env\.example$/],
  ['a misspelled pepper', { PASSWORD_PEPER: '1:x' }, /^PASSWORD_PEPER is not a setting of Herald/],
  ['a misspelled port', { DB_PORTS: '5432' }, /^DB_PORTS is not a setting of Herald/],
  ['a service URL as a port', { DB_PORT: 'tcp://10.0.0.7:5432' }, /^DB_PORT must be/],
  [
    'misspelled proxy hops',
    { TRUST_PROXY_HOP: '1' },
    /^TRUST_PROXY_HOP is not a setting of Herald/,
  ],
  [
    'an absolute session lifetime below the idle one',
    { REFRESH_TOKEN_ABSOLUTE_EXPIRES_IN: '1000' },
    /^REFRESH_TOKEN_ABSOLUTE_EXPIRES_IN must not be below/,
  ],
  [
    'a heartbeat interval too long for the idle timeout',
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
  test(`${what} is reported with the name of the setting`, () => {
    const problems = getProblems(env, () => 'content');

    assert.ok(
      problems.some((line) => problem.test(line)),
      problems.join('\n') || 'no problem',
    );
  });
}

test('PUBLIC_TOPICS is a list of at most 100 patterns of topics', () => {
  const rightsFor = (topics: string) => loadConfig({ PUBLIC_TOPICS: topics }).publicRights;
  const names = (count: number) => Array.from({ length: count }, (_, index) => `t:${index}`);

  assert.deepEqual(
    rightsFor(' news, prices:* ,,__proto__'),
    new Map(['news', 'prices:*', '__proto__'].map((pattern) => [pattern, ['listen']])),
  );
  assert.equal(rightsFor('').size, 0);
  assert.equal(rightsFor(names(100).join()).size, 100);
  for (const [topics, problem] of [
    [names(101).join(), 'PUBLIC_TOPICS must have at most 100 patterns'],
    ['news,prices*', 'PUBLIC_TOPICS has an invalid pattern: must be a topic, or *'],
    ['herald:*', 'PUBLIC_TOPICS has an invalid pattern: must be a topic, or *'],
    [`${names(31).map((name) => name.padEnd(128, 'x'))}`, 'PUBLIC_TOPICS must have at most 4096'],
  ] as const)
    assert.ok(getProblems({ PUBLIC_TOPICS: topics })[0]?.startsWith(problem), topics.slice(0, 40));
});

test('TLS=off is accepted behind a proxy and on a loopback address', () => {
  const allowed = [
    { HOST: '0.0.0.0', TRUST_PROXY_HOPS: '1' },
    ...['', 'localhost', '127.0.0.1', '127.1.2.3', '::1'].map((HOST) => ({ HOST })),
  ];

  for (const env of allowed) {
    assert.equal(loadConfig({ ...env, TLS: 'off' }).http.tls, false);
  }
  assert.equal(loadConfig({}).http.tls, true);
});

const day = 86_400_000;
/** Maximum of each duration setting. */
const durationMaxMs: Readonly<Record<string, number>> = {
  ...{ HANDSHAKE_TIMEOUT: 5 * day, HEADERS_TIMEOUT: 5 * day, BODY_TIMEOUT: 5 * day },
  ...{ PUBLISH_IDLE_TIMEOUT: 5 * day },
  ...{ IDLE_TIMEOUT: 5 * day, END_TIMEOUT: 5 * day, CLEANUP_INTERVAL: 5 * day },
  ...{ DB_CONNECT_TIMEOUT: 5 * day, DB_STATEMENT_TIMEOUT: 5 * day },
  ...{ DRAIN_DELAY: 600_000, DRAIN_TIMEOUT: 600_000, AUTH_QUEUE_TIMEOUT: 60_000 },
  ...{ STREAM_HEARTBEAT: 300_000, STREAM_STALL_TIMEOUT: 600_000, STREAM_RETRY: 60_000 },
  ...{ REFRESH_TOKEN_GRACE: 60_000, ACCESS_TOKEN_CLOCK_TOLERANCE: 300_000 },
  ...{ ACCESS_TOKEN_EXPIRES_IN: 36_525 * day, STREAM_TOKEN_EXPIRES_IN: 36_525 * day },
  ...{ REFRESH_TOKEN_EXPIRES_IN: 36_525 * day, REFRESH_TOKEN_ABSOLUTE_EXPIRES_IN: 36_525 * day },
  ...{
    STREAM_RESUME_WINDOW: 36_525 * day,
    EVENT_LOG_MAX_AGE: 36_525 * day,
    EVENT_LOG_MIN_AGE: 36_525 * day,
  },
  ...{ LOGIN_MAX_DELAY: 36_525 * day, TRUSTED_TOKEN_MAX_LIFE: 30 * day },
};
const allMaxima = Object.fromEntries(
  Object.entries(durationMaxMs).map(([name, ms]) => [name, String(ms)]),
);

test('every duration is accepted at its maximum', () => {
  assert.deepEqual(getProblems({ ...allMaxima }), []);
});

for (const [name, ms] of Object.entries(durationMaxMs)) {
  test(`${name} above ${ms} ms is rejected`, () => {
    const [problem] = getProblems({ ...allMaxima, [name]: String(ms + 1) });

    assert.match(problem ?? 'no problem', new RegExp(`^${name} must be .* to ${ms}$`));
  });
}

test('every setting in milliseconds has a tested maximum', () => {
  const durations =
    /(TIMEOUT|EXPIRES_IN|INTERVAL|DELAY|WINDOW|_AGE|GRACE|TOLERANCE|HEARTBEAT|RETRY|LIFE)$/;

  const names = settingNames().filter((name) => durations.test(name));

  assert.deepEqual(names.toSorted(), Object.keys(durationMaxMs).toSorted());
});

test('variables that Kubernetes and Docker set for linked services are not reported as misspelled', () => {
  const links = {
    ...{ DB_SERVICE_HOST: '10.0.0.7', DB_SERVICE_PORT: '5432', DB_SERVICE_PORT_PG: '5432' },
    ...{ DB_PORT_5432_TCP: 'tcp://10.0.0.7:5432', DB_PORT_5432_TCP_ADDR: '10.0.0.7' },
    ...{ STREAM_API_SERVICE_HOST: '10.0.0.8', STREAM_API_PORT: 'tcp://10.0.0.8:80' },
  };

  assert.deepEqual(getProblems(links), []);
});

test('an unreadable file is reported with the name of its setting', () => {
  const problems = getProblems({ ACCESS_TOKEN_SECRET_FILE: '/nowhere/secret' });

  assert.match(
    problems.join(),
    /^ACCESS_TOKEN_SECRET_FILE names a file that cannot be read \(ENOENT\)/,
  );
});

test('a previous secret with a comma may be given as base64 or hex', () => {
  const withComma = Buffer.from(`${secret},${secret.toLowerCase()}`);
  const list = `base64:${withComma.toString('base64')},hex:${withComma.toString('hex')}`;

  const { accessToken } = loadConfig({ ACCESS_TOKEN_PREVIOUS_SECRETS: list });

  assert.deepEqual(accessToken.previousSecrets, [withComma, withComma]);
});

test('every token of RFC 9110 is accepted as the type of access tokens', () => {
  for (const type of ['Bearer', 'token', 'X-Herald_1.0', "!#$%&'*+^`|~"]) {
    assert.equal(loadConfig({ ACCESS_TOKEN_TYPE: type }).accessToken.type, type);
  }
});

test('PUBLISH_BODIES_LIMIT is 64 MiB, or a quarter of the heap if that is less', () => {
  const mib = 1024 * 1024;
  const getDefault = (heapMib: number) =>
    loadConfig({}, { heapBytesMax: heapMib * mib }).publish.bodiesBytesMax / mib;

  assert.deepEqual([1000, 256, 255, 100, 32].map(getDefault), [64, 64, 63, 25, 8]);
});

test('PUBLISH_BODIES_LIMIT above a quarter of the heap is reported with the maximum', () => {
  const load = (bytes: number) =>
    loadConfig({ PUBLISH_BODIES_LIMIT: String(bytes) }, { heapBytesMax: 400 * 1024 * 1024 });
  const maximum = 100 * 1024 * 1024;

  assert.equal(load(maximum).publish.bodiesBytesMax, maximum);
  assert.throws(
    () => load(maximum + 1),
    /PUBLISH_BODIES_LIMIT must be at most 104857600: a quarter of the heap, see --max-old-space/,
  );
});

test('a secret may come from a file, as text, base64 or hex', () => {
  const bytes = Buffer.from(secret);
  const contents = [secret, `base64:${base64}`, `hex:${hex}`, `hex:${hex.toUpperCase()}`];
  contents.push(`base64:${bytes.toString('base64url')}`);

  for (const content of contents) {
    const readFile = () => `${content}\n`;
    const config = loadConfig({ ACCESS_TOKEN_SECRET_FILE: 'secret' }, { readFile });
    assert.deepEqual(config.accessToken.secret, bytes);
  }
});

test('a byte order mark at the start of a file is ignored', (t) => {
  const file = join(tempFolder(t), 'ca.pem');
  writeFileSync(file, '\ufeff-----BEGIN CERTIFICATE-----\n');

  const { database } = loadConfig({ DB_SSL: 'verify', DB_SSL_CA_FILE: file });

  assert.equal(database.server.ca, '-----BEGIN CERTIFICATE-----\n');
});

test('a secret file with raw bytes instead of UTF-8 text is rejected', (t) => {
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
