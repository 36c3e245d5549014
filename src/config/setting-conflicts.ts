import { isIPv4 } from 'node:net';

/** The settings of a `Config` that are validated together. */
interface Settings {
  readonly accessToken: { readonly issuer: string };
  readonly trustedIssuers: { readonly issuers: readonly { readonly issuer: string }[] };
  readonly session: { readonly absoluteMs: number; readonly idleMs: number };
  readonly stream: {
    readonly heartbeatMs: number;
    readonly unsentSoftBytes: number;
    readonly unsentHardBytes: number;
  };
  readonly publish: {
    readonly eventBytesMax: number;
    readonly bodyBytesMax: number;
    readonly bodiesBytesMax: number;
  };
  readonly database: {
    readonly server: {
      readonly host: string;
      readonly ca: string | undefined;
      readonly ssl: boolean;
    };
  };
  readonly http: {
    readonly host: string;
    readonly tls: boolean;
    readonly trustProxyHops: number;
    readonly limits: { readonly idleMs: number };
  };
  readonly authThreads: { readonly count: number };
}

/** Maximum bytes sent per byte of event data. A line break has the most: it is sent as `\ndata: `. */
const bytesPerDataByteMax = 7;

type Env = Readonly<Record<string, string | undefined>>;

/** Returns the problems of settings that are valid alone but conflict with each other. */
export function findConflicts(settings: Settings, env: Env): string[] {
  const { accessToken, trustedIssuers, session, stream, publish, database, http, authThreads } =
    settings;
  const problems: string[] = [];
  // Hashes run in libuv's pool. If they filled it, file access and DNS would wait for them.
  const poolThreads = getPoolThreads(env['UV_THREADPOOL_SIZE']);
  if (authThreads.count >= poolThreads) {
    problems.push(`AUTH_WORKERS must be below UV_THREADPOOL_SIZE, which is ${poolThreads}`);
  }
  if (database.server.ca !== undefined && !database.server.ssl) {
    problems.push('DB_SSL_CA_FILE cannot be combined with DB_SSL=off');
  }
  if (database.server.ssl && database.server.host.startsWith('/')) {
    problems.push('DB_SSL=verify cannot be combined with a socket in DB_HOST');
  }
  if (trustedIssuers.issuers.some(({ issuer }) => issuer === accessToken.issuer)) {
    problems.push(
      'TRUSTED_ISSUERS_FILE must not list ACCESS_TOKEN_ISSUER, the issuer of the tokens of Herald itself',
    );
  }
  if (session.absoluteMs < session.idleMs) {
    problems.push('REFRESH_TOKEN_ABSOLUTE_EXPIRES_IN must not be below REFRESH_TOKEN_EXPIRES_IN');
  }
  if (http.limits.idleMs < 2 * stream.heartbeatMs) {
    problems.push('IDLE_TIMEOUT must be at least twice STREAM_HEARTBEAT');
  }
  if (!http.tls && http.trustProxyHops === 0 && !isLoopback(http.host)) {
    problems.push(
      'TLS=off needs TRUST_PROXY_HOPS of 1 or more, for a proxy that terminates TLS, or HOST=localhost: otherwise passwords and tokens would be sent unencrypted',
    );
  }
  if (publish.bodiesBytesMax < publish.bodyBytesMax) {
    problems.push('PUBLISH_BODIES_LIMIT must not be below PUBLISH_BODY_LIMIT');
  }
  const unsentHardMin = stream.unsentSoftBytes + bytesPerDataByteMax * publish.eventBytesMax;
  if (stream.unsentHardBytes < unsentHardMin) {
    problems.push(
      `STREAM_UNSENT_HARD must be at least ${unsentHardMin}: STREAM_UNSENT_SOFT plus 7 times EVENT_BYTES_MAX, because a line break in an event is sent as 7 bytes`,
    );
  }
  return problems;
}

/** Returns the number of threads in libuv's pool. Like libuv, treats an invalid or empty number as 1. */
function getPoolThreads(given: string | undefined): number {
  if (given === undefined) return 4;
  return Math.min(1024, Math.max(1, Number.parseInt(given, 10) || 1));
}

/** Whether a server on this host is reachable only from this machine. */
function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIPv4(host) && host.startsWith('127.'));
}
