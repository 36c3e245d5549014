import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

/** A request that was answered, or whose client disconnected before the response (status 499). */
export interface AnsweredRequest {
  readonly method: string;
  /** The route pattern, never the path. */
  readonly route: string;
  readonly status: number;
  /** Milliseconds from request head to response head. The body of a stream is not included. */
  readonly ms: number;
}

/**
 * Functions that are called on each scrape. Each returns the value of a gauge, or of a counter
 * where noted.
 */
export interface MetricReaders {
  readonly connections: () => number;
  /** A counter. */
  readonly connectionsRefused: () => number;
  readonly streams: () => number;
  readonly streamUsers: () => number;
  readonly streamTopics: () => number;
  /** A counter. */
  readonly deliveries: () => number;
  readonly eventLogPosition: () => number;
  readonly publishesWaiting: () => number;
  readonly jobsWaiting: () => number;
  readonly jobsRunning: () => number;
  readonly jobWaitMs: () => number;
  /** A counter. */
  readonly threadCrashes: () => number;
  /** Milliseconds by which the local clock is ahead of the time of the database. */
  readonly clockOffsetMs: () => number;
  /** Size of the write-ahead log; 0 without the embedded database. */
  readonly walBytes: () => number;
}

const methods: readonly string[] = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'];

/**
 * Collects metrics for Prometheus: `herald_…` of this instance, `process_…` and `nodejs_…` of the
 * process. Labels come from short fixed lists, so the number of time series is bounded.
 */
export class Metrics {
  /** The content type of `text`. */
  readonly contentType: string;
  readonly #registry = new Registry();
  readonly #requests = new Histogram({
    name: 'herald_http_request_duration_seconds',
    help: 'Time from request head to response head',
    labelNames: ['method', 'route', 'status'],
    buckets: [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10],
    registers: [this.#registry],
  });
  readonly #opened = this.#counter('herald_streams_opened_total', 'Streams opened', 'start');
  readonly #closed = this.#counter('herald_streams_closed_total', 'Streams ended', 'reason');
  readonly #refused = this.#counter(
    'herald_streams_refused_total',
    'Streams refused with a stream.close event',
    'reason',
  );

  readonly #unreadable = this.#counter(
    'herald_connections_unreadable_total',
    'Connections closed after a TLS or HTTP protocol error',
    'layer',
  );

  readonly #databaseFailures = this.#counter(
    'herald_database_failures_total',
    'Statements and transactions that failed because the database was unavailable',
    'reason',
  );

  readonly #jwksFetches = this.#counter(
    'herald_jwks_fetches_total',
    'Fetches of the keys (JWKS) of trusted issuers',
    ...['issuer', 'outcome'],
  );

  constructor() {
    this.contentType = this.#registry.contentType;
  }

  requestAnswered({ method, route, status, ms }: AnsweredRequest): void {
    const methodLabel = methods.includes(method) ? method : 'other';
    this.#requests.observe({ method: methodLabel, route, status }, ms / 1000);
  }

  connectionUnreadable(layer: string): void {
    this.#unreadable.inc({ layer });
  }

  databaseFailed(reason: string): void {
    this.#databaseFailures.inc({ reason });
  }

  /** Counts a fetch by the number of the issuer in the settings, at most 20. */
  jwksFetched(issuer: number, outcome: string): void {
    this.#jwksFetches.inc({ issuer, outcome });
  }

  /** Counts an opened stream by the start that `stream.open` reports. */
  streamOpened(start: string): void {
    this.#opened.inc({ start });
  }

  streamClosed(reason: string): void {
    this.#closed.inc({ reason });
  }

  streamRefused(reason: string): void {
    this.#refused.inc({ reason });
  }

  /** Registers the readers. Call it once, when all readers can be called. */
  registerReaders(readers: MetricReaders): void {
    const { streams, streamUsers, streamTopics, jobsWaiting, jobsRunning, jobWaitMs } = readers;
    this.#gauge('herald_connections', 'TCP connections open', readers.connections);
    this.#externalCounter(
      'herald_connections_refused_total',
      'TCP connections reset by a connection limit',
      readers.connectionsRefused,
    );
    this.#gauge('herald_streams', 'Streams open', streams);
    this.#gauge('herald_stream_users', 'Users with a stream open', streamUsers);
    this.#gauge('herald_stream_topics', 'Topics with a stream open', streamTopics);
    this.#externalCounter(
      'herald_deliveries_total',
      'Events passed to open streams, without those that a stream replays',
      readers.deliveries,
    );
    this.#gauge(
      'herald_event_log_position',
      'Sequence number of the newest entry of the event log that was delivered or applied',
      readers.eventLogPosition,
    );
    this.#gauge(
      'herald_publishes_waiting',
      'Events waiting to be appended to the event log',
      readers.publishesWaiting,
    );
    this.#gauge('herald_auth_jobs_waiting', 'Hashing and signing jobs queued', jobsWaiting);
    this.#gauge('herald_auth_jobs_running', 'Hashing and signing jobs running', jobsRunning);
    this.#gauge('herald_auth_job_wait_seconds', 'Estimated queue wait of the next job', () => {
      return jobWaitMs() / 1000;
    });
    this.#externalCounter(
      'herald_thread_crashes_total',
      'Worker threads that exited unexpectedly',
      readers.threadCrashes,
    );
    this.#gauge(
      'herald_clock_offset_seconds',
      'Local time minus the time of the database',
      () => readers.clockOffsetMs() / 1000,
    );
    this.#gauge(
      'herald_database_wal_bytes',
      'Size of the write-ahead log of the embedded database',
      readers.walBytes,
    );
  }

  /** Registers the expiry of the certificate, in epoch milliseconds. Not to be called without TLS. */
  registerCertificate(expiresAtMs: () => number): void {
    this.#gauge(
      'herald_certificate_expiry_timestamp_seconds',
      'Unix time at which the certificate expires',
      () => expiresAtMs() / 1000,
    );
  }

  /** Returns all metrics in the Prometheus text format. */
  async text(): Promise<string> {
    return Registry.merge([this.#registry, getProcessRegistry()]).metrics();
  }

  #counter<Label extends string>(
    name: string,
    help: string,
    ...labelNames: Label[]
  ): Counter<Label> {
    return new Counter({ name, help, labelNames, registers: [this.#registry] });
  }

  #gauge(name: string, help: string, read: () => number): void {
    const registers = [this.#registry];
    new Gauge({
      name,
      help,
      registers,
      collect: function collect() {
        this.set(read());
      },
    });
  }

  /** Registers a counter whose value is kept elsewhere. */
  #externalCounter(name: string, help: string, read: () => number): void {
    const registers = [this.#registry];
    const collect = function collect(this: Counter): void {
      this.reset();
      this.inc(read());
    };
    new Counter({ name, help, registers, collect });
  }
}

let defaultRegistry: Registry | undefined;

/**
 * Returns the registry of process metrics, one per process; collection starts with the first call.
 */
function getProcessRegistry(): Registry {
  if (defaultRegistry === undefined) {
    defaultRegistry = new Registry();
    collectDefaultMetrics({ register: defaultRegistry });
  }
  return defaultRegistry;
}
