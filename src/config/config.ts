import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { getHeapStatistics } from 'node:v8';
import { noRights, parseTopicRights, type TopicRights } from '../events/topic-rights.js';
import type { LogLevel } from '../logging/logger.js';
import { EnvReader } from './env-reader.js';
import { parseOrigins } from './origins.js';
import {
  memoryKibMin,
  parseBytes,
  parseFolder,
  parseName,
  parsePepper,
  parseRate,
  parseScheme,
} from './parsers.js';
import { findWeakness, secretBytesMin } from './secret-strength.js';
import { findConflicts } from './setting-conflicts.js';
import { findUnknown } from './setting-typos.js';
import { readTrustedIssuers } from './trusted-issuers.js';

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

/** All settings, validated. Times are in milliseconds and sizes in bytes, unless a name says otherwise. */
export type Config = ReturnType<typeof readSettings>;

/** Thrown for invalid settings, with all problems, not only the first. */
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
  /** Reads the file that a setting names. Default: as UTF-8, without a byte order mark. */
  readonly readFile?: (path: string) => string;
  /** Maximum heap size of this process. Default: the limit that V8 reports. */
  readonly heapBytesMax?: number;
  /** Returns further problems. Called with all settings; invalid ones can have their default or an unusable value. */
  readonly alsoCheck?: (config: Config) => readonly string[];
}

/**
 * Reads and validates the settings of an environment.
 *
 * The result is deeply frozen. Throws `ConfigError` with all problems at once. In production a missing
 * secret, issuer or audience is a problem; elsewhere the secret can be absent, and the other two are `herald`.
 */
export function loadConfig(
  env: Readonly<Record<string, string | undefined>>,
  {
    readFile = readTextFile,
    heapBytesMax = getHeapLimit(),
    alsoCheck = () => [],
  }: LoadOptions = {},
): Config {
  const reader = new EnvReader(env, readFile);
  const config = readSettings(reader, heapBytesMax);
  const problems = [
    ...reader.problems,
    ...findUnknown(env, reader.names),
    ...findConflicts(config, env),
    ...alsoCheck(config),
  ];
  if (problems.length > 0) throw new ConfigError(problems);
  return deepFreeze(config);
}

function readTextFile(path: string): string {
  return readFileSync(path, 'utf8').replace(/^\ufeff/, '');
}

/** Returns the names of all settings, in the order in which `loadConfig` reads them. */
export function settingNames(): readonly string[] {
  const reader = new EnvReader({}, () => '');
  readSettings(reader, getHeapLimit());
  return reader.names;
}

function getHeapLimit(): number {
  return getHeapStatistics().heap_size_limit;
}

function readSettings(reader: EnvReader, heapBytesMax: number) {
  const isProduction =
    reader.choice('NODE_ENV', ['development', 'test', 'production'], 'development') ===
    'production';
  const dataFolder = reader.text('DATA_DIR', 'data');
  return {
    isProduction,
    dataFolder,
    http: readHttp(reader),
    log: {
      folder: parseFolder(reader.text('LOG_PATH', 'logs')),
      level: reader.choice<LogLevel>('LOG_LEVEL', ['error', 'warn', 'info', 'debug'], 'info'),
    },
    database: readDatabase(reader, dataFolder),
    accessToken: readAccessToken(reader, isProduction),
    trustedIssuers: {
      issuers: readTrustedIssuers(reader, 'TRUSTED_ISSUERS_FILE'),
      tokenLifeMaxMs: reader.integer('TRUSTED_TOKEN_MAX_LIFE', day, { min: 1000, max: 30 * day }),
    },
    publicRights: readPublicTopics(reader, 'PUBLIC_TOPICS'),
    session: {
      idleMs: reader.span('REFRESH_TOKEN_EXPIRES_IN', 30 * day, { min: 1000 }),
      absoluteMs: reader.span('REFRESH_TOKEN_ABSOLUTE_EXPIRES_IN', 90 * day, { min: 1000 }),
      graceMs: reader.integer('REFRESH_TOKEN_GRACE', 10_000, { max: minute }),
      perUserMax: reader.integer('MAX_SESSIONS_PER_USER', 50, { min: 1 }),
    },
    password: readPassword(reader),
    rates: {
      login: parseRate(reader, 'LOGIN_IP_RATE', '30/60000'),
      // The defaults of `token` and `streamOpen` are twice that of MAX_STREAMS_PER_IP, so that all streams
      // of an address can reconnect twice in one burst.
      token: parseRate(reader, 'TOKEN_IP_RATE', '1000/60000'),
      streamToken: parseRate(reader, 'STREAM_TOKEN_USER_RATE', '60/60000'),
      streamOpen: parseRate(reader, 'STREAM_OPEN_IP_RATE', '1000/60000'),
      // Verifying 500 signatures with ES512 takes half a second.
      invalidToken: parseRate(reader, 'INVALID_TOKEN_IP_RATE', '500/60000'),
    },
    passwordAttempts: {
      // At most 19, because delays start after 20 wrong passwords of a user from all addresses.
      failuresBeforeDelay: reader.integer('LOGIN_FREE_FAILURES', 5, { min: 1, max: 19 }),
      delayMaxMs: reader.span('LOGIN_MAX_DELAY', 15 * minute, { min: 1000 }),
    },
    authThreads: {
      // For each worker, argon2 occupies a thread of libuv's pool. One of the pool's four threads remains for
      // files and DNS.
      count: reader.integer('AUTH_WORKERS', Math.min(3, availableParallelism()), {
        min: 1,
        max: 64,
      }),
      queuePerThreadMax: reader.integer('AUTH_QUEUE_MAX', 64, { min: 1, max: 100_000 }),
      queueWaitMaxMs: reader.integer('AUTH_QUEUE_TIMEOUT', 5000, { min: 100, max: minute }),
    },
    stream: readStream(reader),
    eventLog: {
      ageMaxMs: reader.span('EVENT_LOG_MAX_AGE', 7 * day, { min: 1000 }),
      ageMinMs: reader.span('EVENT_LOG_MIN_AGE', hour, { min: 0 }),
      eventsMax: reader.integer('EVENT_LOG_MAX_EVENTS', 1_000_000, { min: 1 }),
      bytesMax: reader.integer('EVENT_LOG_MAX_BYTES', 1024 * mib, { min: 64 * kib }),
    },
    publish: readPublish(reader, heapBytesMax),
    cleanupIntervalMs: reader.timer('CLEANUP_INTERVAL', minute, { min: 1000 }),
  };
}

/** Reads patterns of topics to which every user with an access token may listen. */
function readPublicTopics(reader: EnvReader, name: string): TopicRights {
  const patterns = reader.list(name).map((pattern) => [pattern, ['listen']] as const);
  const rights = parseTopicRights(Object.fromEntries(patterns));
  if (typeof rights !== 'string') return rights;
  reader.problems.push(`${name} ${rights}`);
  return noRights;
}

function readHttp(reader: EnvReader) {
  return {
    host: reader.text('HOST', 'localhost'),
    port: reader.integer('PORT', 9001, { max: 65_535 }),
    tls: reader.choice('TLS', ['on', 'off'], 'on') === 'on',
    certificateFile: reader.text('CERTIFICATE', join('certificate', 'server.cert')),
    privateKeyFile: reader.text('PRIVATE_KEY', join('certificate', 'server.key')),
    corsOrigins: parseOrigins(reader, 'CORS_ORIGINS'),
    trustProxyHops: reader.integer('TRUST_PROXY_HOPS', 0, { max: 10 }),
    limits: {
      connectionsMax: reader.integer('MAX_CONNECTIONS', 20_000, { min: 1 }),
      connectionsPerIpMax: reader.integer('MAX_CONNECTIONS_PER_IP', 5000, { min: 1 }),
      acceptRate: parseRate(reader, 'ACCEPT_RATE', '500/1250'),
      acceptIpRate: parseRate(reader, 'ACCEPT_IP_RATE', '500/2000'),
      streamsPerH2SessionMax: reader.integer('MAX_STREAMS_PER_CONNECTION', 128, {
        min: 1,
        max: 1000,
      }),
      headerListBytesMax: reader.integer('HEADER_LIMIT', 16 * kib, { min: kib, max: 64 * kib }),
      bodyBytesMax: reader.integer('BODY_LIMIT', 8 * kib, { min: kib, max: mib }),
      jsonDepthMax: reader.integer('JSON_DEPTH_MAX', 32, { min: 2, max: 1000 }),
      handshakeMs: reader.timer('HANDSHAKE_TIMEOUT', 10_000, { min: 100 }),
      headersMs: reader.timer('HEADERS_TIMEOUT', 10_000, { min: 100 }),
      bodyMs: reader.timer('BODY_TIMEOUT', 10_000, { min: 100 }),
      idleMs: reader.timer('IDLE_TIMEOUT', minute, { min: 1000 }),
      endMs: reader.timer('END_TIMEOUT', 10_000, { min: 100 }),
    },
    drainDelayMs: reader.integer('DRAIN_DELAY', 0, { max: 10 * minute }),
    drainMs: reader.integer('DRAIN_TIMEOUT', 15_000, { max: 10 * minute }),
  };
}

function readDatabase(reader: EnvReader, dataFolder: string) {
  const dialect = reader.choice('DB_DIALECT', dialects, 'sqlite');
  const file = reader.text('DB_STORAGE', join(dataFolder, 'herald.db'));
  const server = {
    host: reader.text('DB_HOST', '127.0.0.1'),
    port: reader.integer('DB_PORT', dialect === 'postgres' ? 5432 : 3306, { min: 1, max: 65_535 }),
    database: reader.text('DB_NAME', 'herald'),
    username: reader.text('DB_USERNAME', 'herald'),
    password: reader.secret('DB_PASSWORD') ?? '',
    passwordFile: reader.paths.get('DB_PASSWORD_FILE'),
    ssl: reader.choice('DB_SSL', ['off', 'verify'], 'off') === 'verify',
    ca: reader.file('DB_SSL_CA_FILE'),
    caFile: reader.paths.get('DB_SSL_CA_FILE'),
    connectionsMax: reader.integer('DB_CONNECTIONS', 10, { min: 2, max: 1000 }),
    connectMs: reader.timer('DB_CONNECT_TIMEOUT', 5000, { min: 100 }),
    statementMs: reader.timer('DB_STATEMENT_TIMEOUT', 15_000, { min: 100 }),
    prepare: reader.flag('DB_PREPARE', true),
  };
  return { dialect, file, server };
}

function readAccessToken(reader: EnvReader, isProduction: boolean) {
  const algorithm = reader.choice('ACCESS_TOKEN_ALGORITHM', algorithms, 'HS256');
  return {
    type: parseScheme(reader, 'ACCESS_TOKEN_TYPE', 'Bearer'),
    algorithm,
    ...readKeys(reader, algorithm, isProduction),
    lifeMs: reader.span('ACCESS_TOKEN_EXPIRES_IN', hour, { min: 1000 }),
    clockToleranceMs: reader.integer('ACCESS_TOKEN_CLOCK_TOLERANCE', 5000, { max: 5 * minute }),
    audience: parseName(reader, 'ACCESS_TOKEN_AUDIENCE', isProduction),
    issuer: parseName(reader, 'ACCESS_TOKEN_ISSUER', isProduction),
  };
}

/** Reads the keys. Outside production `secret` may be absent; `prepareStart` then generates one. */
function readKeys(reader: EnvReader, algorithm: Algorithm, isProduction: boolean) {
  const given = reader.secret('ACCESS_TOKEN_SECRET');
  const secret = given === undefined ? undefined : parseBytes(reader, 'ACCESS_TOKEN_SECRET', given);
  const previousSecrets = reader
    .list('ACCESS_TOKEN_PREVIOUS_SECRETS')
    .map((text) => parseBytes(reader, 'ACCESS_TOKEN_PREVIOUS_SECRETS', text));
  const privateKeyPem = reader.file('ACCESS_TOKEN_PRIVATE_KEY_FILE');
  const previousPublicKeysPem = reader.file('ACCESS_TOKEN_PREVIOUS_PUBLIC_KEYS_FILE');
  const isSymmetric = algorithm.startsWith('HS');
  const weakness = secret === undefined ? undefined : findWeakness(algorithm, secret);
  if (weakness !== undefined) reader.problems.push(`ACCESS_TOKEN_SECRET ${weakness}`);
  for (const [index, previous] of previousSecrets.entries()) {
    // A weak previous secret allows forged tokens, just like a weak current secret.
    const problem = findWeakness(algorithm, previous);
    if (problem === undefined) continue;
    const hint =
      previousSecrets.length === 1
        ? ''
        : '; commas separate secrets, so give one that contains a comma as base64:… or hex:…';
    reader.problems.push(`ACCESS_TOKEN_PREVIOUS_SECRETS: secret ${index + 1} ${problem}${hint}`);
  }
  if (secret === undefined && isProduction) {
    const why = isSymmetric ? '' : `, also with ${algorithm}, for the refresh tokens`;
    const bytes = `${secretBytesMin(algorithm)} random bytes or more`;
    reader.problems.push(`ACCESS_TOKEN_SECRET is required${why}: ${bytes}`);
  }
  if (previousSecrets.length > 3) {
    reader.problems.push('ACCESS_TOKEN_PREVIOUS_SECRETS may list 3 secrets at most');
  }
  const keyFiles = {
    ACCESS_TOKEN_PRIVATE_KEY_FILE: privateKeyPem,
    ACCESS_TOKEN_PREVIOUS_PUBLIC_KEYS_FILE: previousPublicKeysPem,
  };
  for (const [name, content] of Object.entries(keyFiles)) {
    if (isSymmetric && content !== undefined)
      reader.problems.push(`${name} cannot be combined with ${algorithm}`);
  }
  if (!isSymmetric && privateKeyPem === undefined) {
    reader.problems.push(`ACCESS_TOKEN_PRIVATE_KEY_FILE is required for ${algorithm}`);
  }
  return { secret, previousSecrets, privateKeyPem, previousPublicKeysPem };
}

function readPassword(reader: EnvReader) {
  const isWeakAllowed = reader.flag('ARGON2_ALLOW_WEAK', false);
  const cost = {
    memoryKib: reader.integer('ARGON2_MEMORY_KIB', 19_456, { min: 7168, max: 262_144 }),
    passes: reader.integer('ARGON2_TIME', 2, { min: 1, max: 10 }),
    lanes: reader.integer('ARGON2_PARALLELISM', 1, { min: 1, max: 8 }),
  };
  if (!isWeakAllowed && cost.memoryKib < memoryKibMin(cost.passes)) {
    const minimum = memoryKibMin(cost.passes);
    reader.problems.push(
      `ARGON2_MEMORY_KIB must be ${minimum} or more with ARGON2_TIME=${cost.passes}`,
    );
  }
  return {
    cost,
    lengthMin: reader.integer('PASSWORD_MIN_LENGTH', 8, { min: 1, max: 64 }),
    pepper: parsePepper(reader, 'PASSWORD_PEPPER'),
    previousPepper: parsePepper(reader, 'PASSWORD_PEPPER_PREVIOUS'),
  };
}

function readStream(reader: EnvReader) {
  return {
    tokenLifeMs: reader.span('STREAM_TOKEN_EXPIRES_IN', 5 * minute, { min: 1000 }),
    tokenMode: reader.choice('STREAM_TOKEN_MODE', ['resume', 'single'], 'resume'),
    resumeWindowMs: reader.span('STREAM_RESUME_WINDOW', 12 * hour, { min: 10 * minute }),
    streamsMax: reader.integer('MAX_STREAMS', 10_000, { min: 1 }),
    perUserMax: reader.integer('MAX_STREAMS_PER_USER', 10, { min: 1 }),
    perIpMax: reader.integer('MAX_STREAMS_PER_IP', 500, { min: 1 }),
    heartbeatMs: reader.integer('STREAM_HEARTBEAT', 15_000, { min: 1000, max: 300_000 }),
    stallMs: reader.integer('STREAM_STALL_TIMEOUT', 30_000, { min: 1000, max: 10 * minute }),
    unsentSoftBytes: reader.integer('STREAM_UNSENT_SOFT', 64 * kib, { min: kib, max: 16 * mib }),
    unsentHardBytes: reader.integer('STREAM_UNSENT_HARD', mib, { min: 64 * kib, max: 64 * mib }),
    retryMs: reader.integer('STREAM_RETRY', 2000, { min: 100, max: minute }),
  };
}

function readPublish(reader: EnvReader, heapBytesMax: number) {
  // A body takes up to twice its bytes as text, and its events take their own memory.
  const heapShare = Math.floor(heapBytesMax / 4 / mib) * mib;
  const name = 'PUBLISH_BODIES_LIMIT';
  const bodiesBytesMax = reader.integer(name, Math.min(64 * mib, heapShare), { min: 8 * mib });
  if (bodiesBytesMax > heapShare) {
    const why = 'a quarter of the heap, see --max-old-space-size of Node';
    reader.problems.push(`${name} must be at most ${heapShare}: ${why}`);
  }
  return {
    eventBytesMax: reader.integer('EVENT_BYTES_MAX', 64 * kib, { min: 1, max: 512 * kib }),
    bodyBytesMax: reader.integer('PUBLISH_BODY_LIMIT', 8 * mib, { min: 1 * kib, max: 64 * mib }),
    bodiesBytesMax,
    linesIdleMs: reader.timer('PUBLISH_IDLE_TIMEOUT', 10 * minute, { min: 1000 }),
  };
}

function deepFreeze<Value extends object>(value: Value): Value {
  for (const member of Object.values(value)) {
    if (typeof member === 'object' && member !== null && !ArrayBuffer.isView(member))
      deepFreeze(member);
  }
  return Object.freeze(value);
}
