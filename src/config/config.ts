import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import type { LogLevel } from '../logging/log.js';
import { EnvReader } from './env-reader.js';
import {
  bytesOf,
  folderOf,
  named,
  originsOf,
  pepperOf,
  rateOf,
  weakestMemoryKib,
} from './parsers.js';
import { secretBytesMin, weaknessOf } from './secret-strength.js';
import { conflicts, misspelled } from './setting-conflicts.js';

export const dialects = ['sqlite', 'postgres', 'mariadb', 'mysql'] as const;

export const algorithms = [
  'HS256',
  'HS384',
  'HS512',
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
] as const;

export type Algorithm = (typeof algorithms)[number];

const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;
const kib = 1024;
const mib = 1024 * kib;

/** All settings, checked, in base units: milliseconds, bytes, whole numbers. Frozen. */
export type Config = ReturnType<typeof read>;

/** Thrown by `loadConfig`: every problem, not only the first. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(
      `Cannot start: ${problems.length} problem(s) in the settings\n- ${problems.join('\n- ')}`,
    );
    this.problems = problems;
  }
}

export interface LoadOptions {
  /** For the settings that name a file. */
  readonly readFile?: (path: string) => string;
  /** Further problems, told together with those of the settings, of which it gets what could be read. */
  readonly alsoCheck?: (config: Config) => readonly string[];
}

/**
 * The settings in an environment.
 *
 * Throws `ConfigError` with all problems at once. With `NODE_ENV=production` nothing is made up:
 * a missing secret, issuer or audience is a problem.
 */
export function loadConfig(
  env: Readonly<Record<string, string | undefined>>,
  { readFile = (path) => readFileSync(path, 'utf8'), alsoCheck = () => [] }: LoadOptions = {},
): Config {
  const reader = new EnvReader(env, readFile);
  const config = read(reader);
  const problems = [
    ...reader.problems,
    ...misspelled(env, reader.names),
    ...conflicts(config, env),
    ...alsoCheck(config),
  ];
  if (problems.length > 0) throw new ConfigError(problems);
  return deepFreeze(config);
}

/** The names `loadConfig` reads, in the order of `.env.example`. */
export function settingNames(): readonly string[] {
  const reader = new EnvReader({}, () => '');
  read(reader);
  return reader.names;
}

function read(from: EnvReader) {
  const production =
    from.choice('NODE_ENV', ['development', 'test', 'production'], 'development') === 'production';
  const dataFolder = from.text('DATA_DIR', 'data');
  return {
    production,
    dataFolder,
    http: readHttp(from),
    log: {
      folder: folderOf(from.text('LOG_PATH', 'logs')),
      level: from.choice<LogLevel>('LOG_LEVEL', ['error', 'warn', 'info', 'debug'], 'info'),
    },
    database: readDatabase(from, dataFolder),
    accessToken: readAccessToken(from, production),
    session: {
      idleMs: from.span('REFRESH_TOKEN_EXPIRES_IN', 30 * day, { min: 1000 }),
      absoluteMs: from.span('REFRESH_TOKEN_ABSOLUTE_EXPIRES_IN', 90 * day, { min: 1000 }),
      graceMs: from.whole('REFRESH_TOKEN_GRACE', 10_000, { max: minute }),
      perUserMax: from.whole('MAX_SESSIONS_PER_USER', 50, { min: 1 }),
    },
    password: readPassword(from),
    rates: {
      login: rateOf(from, 'LOGIN_IP_RATE', '30/60000'),
      // Twice MAX_STREAMS_PER_IP: all behind one address may come back together, and once more.
      token: rateOf(from, 'TOKEN_IP_RATE', '1000/60000'),
      streamToken: rateOf(from, 'STREAM_TOKEN_USER_RATE', '60/60000'),
      streamOpen: rateOf(from, 'STREAM_OPEN_IP_RATE', '1000/60000'),
    },
    throttle: {
      freeFailures: from.whole('LOGIN_FREE_FAILURES', 5, { min: 1, max: 100 }),
      delayMaxMs: from.span('LOGIN_MAX_DELAY', 15 * minute, { min: 1000 }),
    },
    authThreads: {
      // One thread of Node's own pool of four stays free for files and name look-ups.
      count: from.whole('AUTH_WORKERS', Math.min(3, availableParallelism()), { min: 1, max: 64 }),
      queuePerThreadMax: from.whole('AUTH_QUEUE_MAX', 64, { min: 1, max: 100_000 }),
      queueWaitMaxMs: from.whole('AUTH_QUEUE_TIMEOUT', 5000, { min: 100, max: minute }),
    },
    stream: readStream(from),
    eventLog: {
      ageMaxMs: from.span('EVENT_LOG_MAX_AGE', 7 * day, { min: 1000 }),
      eventsMax: from.whole('EVENT_LOG_MAX_EVENTS', 1_000_000, { min: 1 }),
      bytesMax: from.whole('EVENT_LOG_MAX_BYTES', 1024 * mib, { min: 64 * kib }),
    },
    publish: {
      eventBytesMax: from.whole('EVENT_BYTES_MAX', 64 * kib, { min: 1, max: 512 * kib }),
      bodyBytesMax: from.whole('PUBLISH_BODY_LIMIT', 8 * mib, { min: 1 * kib, max: 64 * mib }),
      bodiesBytesMax: from.whole('PUBLISH_BODIES_LIMIT', 64 * mib, { min: 8 * mib }),
    },
    cleanupIntervalMs: from.timer('CLEANUP_INTERVAL', minute, { min: 1000 }),
  };
}

function readHttp(from: EnvReader) {
  return {
    host: from.text('HOST', 'localhost'),
    port: from.whole('PORT', 9001, { max: 65_535 }),
    certificateFile: from.text('CERTIFICATE', join('certificate', 'server.cert')),
    privateKeyFile: from.text('PRIVATE_KEY', join('certificate', 'server.key')),
    corsOrigins: originsOf(from, 'CORS_ORIGINS'),
    trustProxyHops: from.whole('TRUST_PROXY_HOPS', 0, { max: 10 }),
    limits: {
      connectionsMax: from.whole('MAX_CONNECTIONS', 20_000, { min: 1 }),
      connectionsPerIpMax: from.whole('MAX_CONNECTIONS_PER_IP', 5000, { min: 1 }),
      acceptRate: rateOf(from, 'ACCEPT_RATE', '500/1250'),
      acceptIpRate: rateOf(from, 'ACCEPT_IP_RATE', '500/2000'),
      streamsPerH2SessionMax: from.whole('MAX_STREAMS_PER_CONNECTION', 128, { min: 1, max: 1000 }),
      headerListBytesMax: from.whole('HEADER_LIMIT', 16 * kib, { min: kib, max: 64 * kib }),
      bodyBytesMax: from.whole('BODY_LIMIT', 8 * kib, { min: kib, max: mib }),
      jsonDepthMax: from.whole('JSON_DEPTH_MAX', 32, { min: 2, max: 1000 }),
      handshakeMs: from.timer('HANDSHAKE_TIMEOUT', 10_000, { min: 100 }),
      headersMs: from.timer('HEADERS_TIMEOUT', 10_000, { min: 100 }),
      bodyMs: from.timer('BODY_TIMEOUT', 10_000, { min: 100 }),
      idleMs: from.timer('IDLE_TIMEOUT', minute, { min: 1000 }),
      endMs: from.timer('END_TIMEOUT', 10_000, { min: 100 }),
    },
    drainDelayMs: from.whole('DRAIN_DELAY', 0, { max: 10 * minute }),
    drainMs: from.whole('DRAIN_TIMEOUT', 15_000, { max: 10 * minute }),
  };
}

function readDatabase(from: EnvReader, dataFolder: string) {
  const dialect = from.choice('DB_DIALECT', dialects, 'sqlite');
  const file = from.text('DB_STORAGE', join(dataFolder, 'herald.db'));
  const server = {
    host: from.text('DB_HOST', '127.0.0.1'),
    port: from.whole('DB_PORT', dialect === 'postgres' ? 5432 : 3306, { min: 1, max: 65_535 }),
    database: from.text('DB_NAME', 'herald'),
    username: from.text('DB_USERNAME', 'herald'),
    password: from.secret('DB_PASSWORD') ?? '',
    ssl: from.choice('DB_SSL', ['off', 'verify'], 'off') === 'verify',
    ca: from.file('DB_SSL_CA_FILE'),
    connectionsMax: from.whole('DB_CONNECTIONS', 10, { min: 2, max: 1000 }),
    connectMs: from.timer('DB_CONNECT_TIMEOUT', 5000, { min: 100 }),
    statementMs: from.timer('DB_STATEMENT_TIMEOUT', 15_000, { min: 100 }),
    prepare: from.flag('DB_PREPARE', true),
  };
  return { dialect, file, server };
}

function readAccessToken(from: EnvReader, production: boolean) {
  const algorithm = from.choice('ACCESS_TOKEN_ALGORITHM', algorithms, 'HS256');
  return {
    type: from.text('ACCESS_TOKEN_TYPE', 'Bearer'),
    algorithm,
    ...readKeys(from, algorithm, production),
    lifeMs: from.span('ACCESS_TOKEN_EXPIRES_IN', hour, { min: 1000 }),
    clockToleranceMs: from.whole('ACCESS_TOKEN_CLOCK_TOLERANCE', 5000, { max: 5 * minute }),
    audience: named(from, 'ACCESS_TOKEN_AUDIENCE', production),
    issuer: named(from, 'ACCESS_TOKEN_ISSUER', production),
  };
}

/** `secret` is absent only outside production, where one is then made up. */
function readKeys(from: EnvReader, algorithm: Algorithm, production: boolean) {
  const given = from.secret('ACCESS_TOKEN_SECRET');
  const secret = given === undefined ? undefined : bytesOf(from, 'ACCESS_TOKEN_SECRET', given);
  const previousSecrets = from
    .list('ACCESS_TOKEN_PREVIOUS_SECRETS')
    .map((one) => bytesOf(from, 'ACCESS_TOKEN_PREVIOUS_SECRETS', one));
  const privateKeyPem = from.file('ACCESS_TOKEN_PRIVATE_KEY_FILE');
  const previousPublicKeysPem = from.file('ACCESS_TOKEN_PREVIOUS_PUBLIC_KEYS_FILE');
  const symmetric = algorithm.startsWith('HS');
  const weakness = secret === undefined ? undefined : weaknessOf(algorithm, secret);
  if (weakness !== undefined) from.problems.push(`ACCESS_TOKEN_SECRET ${weakness}`);
  for (const previous of previousSecrets) {
    // One that is weak forges as well as the current one would.
    const problem = weaknessOf(algorithm, previous);
    if (problem !== undefined) from.problems.push(`ACCESS_TOKEN_PREVIOUS_SECRETS: one ${problem}`);
  }
  if (secret === undefined && production) {
    const why = symmetric ? '' : `, also with ${algorithm}, for the refresh tokens`;
    const bytes = `${secretBytesMin(algorithm)} random bytes or more`;
    from.problems.push(`ACCESS_TOKEN_SECRET is required${why}: ${bytes}`);
  }
  if (previousSecrets.length > 3) {
    from.problems.push('ACCESS_TOKEN_PREVIOUS_SECRETS may list 3 secrets at most');
  }
  if (symmetric && (privateKeyPem !== undefined || previousPublicKeysPem !== undefined)) {
    from.problems.push(`ACCESS_TOKEN_PRIVATE_KEY_FILE does not go with ${algorithm}`);
  }
  if (!symmetric && privateKeyPem === undefined) {
    from.problems.push(`ACCESS_TOKEN_PRIVATE_KEY_FILE is required for ${algorithm}`);
  }
  return { secret, previousSecrets, privateKeyPem, previousPublicKeysPem };
}

function readPassword(from: EnvReader) {
  const allowWeak = from.flag('ARGON2_ALLOW_WEAK', false);
  const cost = {
    memoryKib: from.whole('ARGON2_MEMORY_KIB', 19_456, { min: 7168, max: 262_144 }),
    passes: from.whole('ARGON2_TIME', 2, { min: 1, max: 10 }),
    lanes: from.whole('ARGON2_PARALLELISM', 1, { min: 1, max: 8 }),
  };
  if (!allowWeak && cost.memoryKib < weakestMemoryKib(cost.passes)) {
    const least = weakestMemoryKib(cost.passes);
    from.problems.push(
      `ARGON2_MEMORY_KIB must be ${least} or more with ARGON2_TIME=${cost.passes}`,
    );
  }
  return {
    cost,
    lengthMin: from.whole('PASSWORD_MIN_LENGTH', 8, { min: 1, max: 64 }),
    pepper: pepperOf(from, 'PASSWORD_PEPPER'),
    previousPepper: pepperOf(from, 'PASSWORD_PEPPER_PREVIOUS'),
  };
}

function readStream(from: EnvReader) {
  return {
    tokenLifeMs: from.span('STREAM_TOKEN_EXPIRES_IN', 5 * minute, { min: 1000 }),
    tokenMode: from.choice('STREAM_TOKEN_MODE', ['resume', 'single'], 'resume'),
    resumeWindowMs: from.span('STREAM_RESUME_WINDOW', 12 * hour, { min: 10 * minute }),
    streamsMax: from.whole('MAX_STREAMS', 10_000, { min: 1 }),
    perUserMax: from.whole('MAX_STREAMS_PER_USER', 10, { min: 1 }),
    perIpMax: from.whole('MAX_STREAMS_PER_IP', 500, { min: 1 }),
    heartbeatMs: from.whole('STREAM_HEARTBEAT', 15_000, { min: 1000, max: 300_000 }),
    stallMs: from.whole('STREAM_STALL_TIMEOUT', 30_000, { min: 1000, max: 10 * minute }),
    unsentSoftBytes: from.whole('STREAM_UNSENT_SOFT', 64 * kib, { min: kib, max: 16 * mib }),
    unsentHardBytes: from.whole('STREAM_UNSENT_HARD', mib, { min: 64 * kib, max: 64 * mib }),
    retryMs: from.whole('STREAM_RETRY', 2000, { min: 100, max: minute }),
  };
}

function deepFreeze<Value extends object>(value: Value): Value {
  for (const part of Object.values(value)) {
    if (typeof part === 'object' && part !== null && !ArrayBuffer.isView(part)) deepFreeze(part);
  }
  return Object.freeze(value);
}
