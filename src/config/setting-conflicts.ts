/** What is looked at together, of a `Config`. */
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
    readonly server: { readonly ca: string | undefined; readonly ssl: boolean };
  };
  readonly http: { readonly limits: { readonly idleMs: number } };
  readonly authThreads: { readonly count: number };
}

type Env = Readonly<Record<string, string | undefined>>;

/** Settings that are each right but do not go together. */
export function findConflicts(settings: Settings, env: Env): string[] {
  const { session, stream, publish, database, http, authThreads } = settings;
  const problems: string[] = [];
  // All hashes compute there, with files and name look-ups, which would wait behind them.
  const nodePool = Number(env['UV_THREADPOOL_SIZE']) || 4;
  if (authThreads.count >= nodePool) {
    problems.push(`AUTH_WORKERS must be below UV_THREADPOOL_SIZE, which is ${nodePool}`);
  }
  if (database.server.ca !== undefined && !database.server.ssl) {
    problems.push('DB_SSL_CA_FILE cannot be combined with DB_SSL=off');
  }
  if (session.absoluteMs < session.idleMs) {
    problems.push('REFRESH_TOKEN_ABSOLUTE_EXPIRES_IN must not be below REFRESH_TOKEN_EXPIRES_IN');
  }
  if (http.limits.idleMs < 2 * stream.heartbeatMs) {
    problems.push('IDLE_TIMEOUT must be at least twice STREAM_HEARTBEAT');
  }
  if (publish.bodiesBytesMax < publish.bodyBytesMax) {
    problems.push('PUBLISH_BODIES_LIMIT must not be below PUBLISH_BODY_LIMIT');
  }
  if (stream.unsentHardBytes < stream.unsentSoftBytes + publish.eventBytesMax) {
    problems.push('STREAM_UNSENT_HARD must be at least STREAM_UNSENT_SOFT plus EVENT_BYTES_MAX');
  }
  return problems;
}

/** Names that begin like ours but are none of ours: most likely a slip of the pen. */
export function findMisspelled(env: Env, names: readonly string[]): string[] {
  const ours =
    /^(ACCESS_TOKEN|REFRESH_TOKEN|TOKEN_IP|STREAM|EVENT_LOG|ARGON2|DB|LOGIN|AUTH_QUEUE)_|^PASSWORD_PEP|^TRUST_PROX/;
  return Object.keys(env)
    .filter((name) => ours.test(name) && !names.includes(name) && !isServiceLink(name, env[name]))
    .map((name) => `${name} is not a setting of Herald: see .env.example`);
}

/** What Kubernetes and Docker set for a service of that name beside us, such as `db`. */
function isServiceLink(name: string, value: string | undefined): boolean {
  const isPort = name.endsWith('_PORT') && /^(tcp|udp|sctp):\/\//.test(value ?? '');
  return isPort || /_SERVICE_(HOST|PORT)(_|$)|_PORT_\d+_(TCP|UDP|SCTP)(_|$)/.test(name);
}
