import { isIPv4 } from 'node:net';

/** The settings of a `Config` that are validated together. */
interface Settings {
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

/** Maximum bytes sent per byte of event data: a line break is sent as `\ndata: `. */
const bytesPerDataByteMax = 7;

type Env = Readonly<Record<string, string | undefined>>;

/** Returns the problems of settings that are valid alone but conflict with each other. */
export function findConflicts(settings: Settings, env: Env): string[] {
  const { session, stream, publish, database, http, authThreads } = settings;
  const problems: string[] = [];
  // Hashes run in libuv's pool. If they filled it, file access and DNS would wait for them.
  const nodePool = Number(env['UV_THREADPOOL_SIZE']) || 4;
  if (authThreads.count >= nodePool) {
    problems.push(`AUTH_WORKERS must be below UV_THREADPOOL_SIZE, which is ${nodePool}`);
  }
  if (database.server.ca !== undefined && !database.server.ssl) {
    problems.push('DB_SSL_CA_FILE cannot be combined with DB_SSL=off');
  }
  if (database.server.ssl && database.server.host.startsWith('/')) {
    problems.push('DB_SSL=verify cannot be combined with a socket in DB_HOST');
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

/** Whether a host is this machine, and not reachable from others. */
function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIPv4(host) && host.startsWith('127.'));
}

/**
 * Returns a problem for each unknown name with a prefix that hardly any other program uses: probably a typo.
 * `findTypos` warns about other typos, in `.env` only.
 */
export function findMisspelled(env: Env, names: readonly string[]): string[] {
  const distinctivePrefixes =
    /^(ACCESS_TOKEN|REFRESH_TOKEN|TOKEN_IP|STREAM|EVENT_LOG|ARGON2|DB|LOGIN|AUTH_QUEUE)_|^PASSWORD_PEP|^TRUST_PROX/;
  return Object.keys(env)
    .filter(
      (name) =>
        distinctivePrefixes.test(name) && !names.includes(name) && !isServiceLink(name, env[name]),
    )
    .map((name) => `${name} is not a setting of Herald: see .env.example`);
}

/** Whether this is a host or port variable that Kubernetes or Docker sets for a linked service, such as `db`. */
function isServiceLink(name: string, value: string | undefined): boolean {
  const isPort = name.endsWith('_PORT') && /^(tcp|udp|sctp):\/\//.test(value ?? '');
  return isPort || /_SERVICE_(HOST|PORT)(_|$)|_PORT_\d+_(TCP|UDP|SCTP)(_|$)/.test(name);
}
