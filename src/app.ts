import { randomBytes } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import { adminRoutes } from './admin/routes.js';
import { type Auth, openAuth } from './auth/open.js';
import { ServerCertificate } from './certificates/server-certificate.js';
import type { Clock } from './clock.js';
import type { Config } from './config/config.js';
import { DatabaseClock } from './db/database-clock.js';
import { HealthCheckedDatabase } from './db/health-checked-database.js';
import { openDatabase } from './db/open.js';
import { toDatabaseOptions } from './db/options.js';
import { Failure } from './errors.js';
import type { EventLog } from './event-log/event-log.js';
import { controlEntryAppender, headSeqSql, openEventLog, probeEventLog } from './event-log/open.js';
import { publishRoutes } from './event-log/publish.js';
import { toClient } from './http/client.js';
import { fitConnections, OpenFilesMonitor, readOpenFiles } from './http/limits/open-files.js';
import { healthRoutes } from './http/routes/health.js';
import { metricsRoute } from './http/routes/metrics-route.js';
import { openApiRoute } from './http/routes/openapi-route.js';
import { HttpServer } from './http/server.js';
import { ApiKeys, publisherKeys } from './identity/api-keys.js';
import { BearerAuth, type ForeignUsers } from './identity/bearer.js';
import { TrustedIssuers } from './identity/issuers/trusted-issuers.js';
import type { Logger } from './logging/logger.js';
import { WarningAggregator } from './logging/warning-aggregator.js';
import { type MetricReaders, Metrics } from './metrics.js';
import { Disconnects } from './stream/disconnects.js';
import { closeGradually } from './stream/gradual-close.js';
import { openStreaming, type Streaming } from './stream/open.js';
import { tickMs } from './stream/registry.js';
import { Memberships } from './stream/topics/memberships.js';
import { Revocations } from './stream/topics/revocations.js';
import { CleanUp } from './util/clean-up.js';
import { CloseStack } from './util/close-stack.js';
import { untilAborted } from './util/until-aborted.js';

export interface AppOptions {
  readonly config: Config;
  readonly log: Logger;
  /** The local clock. Components get the time of a `DatabaseClock`. */
  readonly wallClock?: Clock;
  readonly monotonicClock?: Clock;
  readonly random?: () => number;
  /** Aborts `App.open`, which then rejects with the reason and leaves nothing open. */
  readonly signal?: AbortSignal | undefined;
}

/** Time reserved for closing the components that the server uses. */
const closeComponentsMs = 1000;
/** Longer than a hash at the highest cost that the settings allow. */
const finishHashesMs = 5000;

/** The running system. Components are opened bottom-up and closed in reverse order. */
export class App {
  readonly #config: Config;
  readonly #log: Logger;
  readonly #random: () => number;
  readonly #monotonicClock: Clock;
  readonly #closeStack: CloseStack;
  #auth: Auth | undefined;
  #certificate: ServerCertificate | undefined;
  #server: HttpServer | undefined;
  #eventLog: EventLog | undefined;
  #streaming: Streaming | undefined;
  #isStopping = false;
  readonly #stopController = new AbortController();
  #fail: () => void = () => {};
  /**
   * Resolves when the system cannot continue and a supervisor should restart it. Never settles
   * otherwise.
   */
  readonly failed = new Promise<void>((resolve) => {
    this.#fail = resolve;
  });
  /** Deadline, by `performance.now()`, after which open connections are destroyed. */
  #destroyAt = 0;
  #closing: Promise<void> | undefined;

  private constructor({ config, log, random = Math.random, monotonicClock }: AppOptions) {
    this.#config = config;
    this.#log = log;
    this.#random = random;
    this.#monotonicClock = monotonicClock ?? (() => performance.now());
    this.#closeStack = new CloseStack(log);
  }

  /**
   * Resolves when requests are accepted. Rejects if a component fails to open, after closing the
   * others.
   */
  static async open(options: AppOptions): Promise<App> {
    const app = new App(options);
    try {
      await app.#open(options.wallClock ?? Date.now, options.signal);
      options.signal?.throwIfAborted();
      return app;
    } catch (cause) {
      await app.#closeStack.close(performance.now() + options.config.http.drainMs);
      throw cause;
    }
  }

  /** The listening port: the configured port, or the port that the system assigned if 0 is configured. */
  get port(): number {
    return this.#server?.port ?? 0;
  }

  /**
   * Reloads certificate and key for new connections, and warns if the certificate expires soon. Rejects and
   * keeps the old ones on failure. Does nothing without TLS.
   */
  async reloadCertificate(): Promise<void> {
    await this.#certificate?.reload();
  }

  /**
   * Reports not ready and keeps serving for `drainDelayMs`, so that load balancers notice. Then rejects
   * new work, finishes pending work and closes everything within `drainMs` (below 4 s: within three
   * quarters of `drainMs` plus 1 s), even when the database does not respond. The last second of that time
   * is reserved for the components that the server uses. Idempotent.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /**
   * Refuses new password hashes and waits for those that are running, at most five seconds. To be called
   * before `process.exit`, because argon2 aborts the process when its thread is ended during a hash.
   */
  async finishHashes(): Promise<void> {
    await Promise.race([this.#auth?.close(), wait(finishHashesMs)]);
  }

  async #open(localClock: Clock, signal: AbortSignal | undefined): Promise<void> {
    const config = this.#config;
    const log = this.#log;
    const metrics = new Metrics();
    const warnings = new WarningAggregator({ log, monotonicClock: this.#monotonicClock });
    this.#closeStack.add('warnings', () => warnings.flush());
    const database = openDatabase(toDatabaseOptions(config, log));
    const db = new HealthCheckedDatabase(await untilAborted(database, signal), {
      probe: (uncheckedDb) => probeEventLog(uncheckedDb, config.publish.eventBytesMax, wallClock()),
      log,
      onUnavailable: (reason) => metrics.databaseFailed(reason),
      monotonicClock: this.#monotonicClock,
    });
    this.#closeStack.add('database', () => db.close());
    const clocks = { wallClock: localClock, monotonicClock: this.#monotonicClock };
    const openingClock = DatabaseClock.open({ db: db.background ?? db, log, ...clocks });
    const clock = await untilAborted(openingClock, signal);
    const wallClock = () => clock.now();
    this.#closeStack.add('database clock', () => clock.close());

    const appendControlEntries = controlEntryAppender(db, wallClock);
    const auth = await openAuth({
      db,
      config,
      log,
      warnings,
      wallClock,
      monotonicClock: this.#monotonicClock,
      appendControlEntries,
      headSeqSql,
      onEnded: ({ sessionIds }) => this.#endStreams(sessionIds),
    });
    this.#auth = auth;
    this.#closeStack.add('auth', () => auth.close());
    const { accessTokens, sessions } = auth;
    const apiKeys = new ApiKeys({ db, log, wallClock, appendControlEntries, headSeqSql });
    await apiKeys.loadKnown();
    const { type: tokenType, issuer: realm } = config.accessToken;
    const disconnects = new Disconnects({
      ...{ db, wallClock, appendControlEntries, headSeqSql },
      tokenKeptMs: Math.max(config.stream.tokenLifeMs, config.stream.resumeWindowMs),
    });
    const issuers = await TrustedIssuers.open({
      ...config.trustedIssuers,
      clockToleranceMs: config.accessToken.clockToleranceMs,
      onFetched: (issuer, outcome) => metrics.jwksFetched(issuer, outcome),
      ...{ warnings, wallClock, monotonicClock: this.#monotonicClock },
    });
    this.#closeStack.add('trusted issuers', () => issuers.close());
    const foreignUsers: ForeignUsers = {
      issuers,
      findDisconnectState: (userId, sessionId) => disconnects.findState(userId, sessionId),
    };
    const bearer = new BearerAuth({
      ...{ accessTokens, sessions, apiKeys, foreignUsers, tokenType, realm },
      publicRights: config.publicRights,
      admitUnverified: (exchange) => auth.rateLimiter.admit('invalidToken', toClient(exchange)),
      ...{ audit: auth.audit, warnings, monotonicClock: this.#monotonicClock },
    });
    // Not earlier, because ending a thread while `openAuth` hashes would abort the process.
    signal?.throwIfAborted();

    const openingLog = openEventLog({
      ...{ db, log, wallClock, limits: config.eventLog },
      newEpoch: BigInt(`0x${randomBytes(6).toString('hex')}`).toString(36),
      onReplaced: () => this.#endReplacedLog(),
      publisherKeys,
    });
    const eventLog = await untilAborted(openingLog, signal);
    this.#eventLog = eventLog;
    this.#closeStack.add('event log', () => eventLog.close());

    const openingStreaming = openStreaming({
      db,
      appendControlEntries,
      eventLog,
      metrics,
      log,
      warnings,
      wallClock,
      monotonicClock: this.#monotonicClock,
      random: this.#random,
      config: config.stream,
      access: {
        verifyUser: async (exchange, token) => {
          const verified = await bearer.verifyUser(exchange, token);
          // A stream ends at the exp of its JWT, so in the clock tolerance after it no stream is opened.
          return () => bearer.findSession(verified, { endsAfter: wallClock() });
        },
        parseCredential: (exchange) => bearer.parseCredential(exchange),
        findLiveSession: (sessionId) => auth.sessions.findLive(sessionId),
        checkTokenRate: (exchange, userId) =>
          auth.rateLimiter.admit('streamToken', toClient(exchange), userId),
        reportLeak: (exchange, { id: sessionId, userId }) =>
          auth.audit.record('authn_token_reuse', {
            client: toClient(exchange),
            ...{ userId, sessionId, reason: 'stream token' },
          }),
        checkStreamRate: (exchange) => auth.rateLimiter.admit('streamOpen', toClient(exchange)),
      },
    });
    const streaming = await untilAborted(openingStreaming, signal);
    this.#streaming = streaming;
    this.#closeStack.add('streaming', () => streaming.close());

    const memberships = new Memberships({ db, appendControlEntries, headSeqSql });
    const revocations = new Revocations({ db, wallClock, appendControlEntries });
    const certificate = await this.#openCertificate(wallClock);
    const cleanUpTasks = {
      ...auth.cleanUpTasks,
      ...streaming.cleanUpTasks,
      disconnects: () => disconnects.sweep(),
      topicRevocations: () => revocations.sweep(),
      idempotencyKeys: () => eventLog.sweepIdempotencyKeys(),
      eventLog: () => eventLog.trim(),
    };
    const onTick = () => {
      streaming.streams.tick();
      issuers.refreshKeys();
      warnings.report();
      certificate?.tick();
    };
    this.#startBackgroundTasks(clock, cleanUpTasks, onTick);

    const connectionsMax = fitConnections(config.http.limits.connectionsMax, {
      files: readOpenFiles(),
      reserved: config.database.server.connectionsMax,
      log,
    });
    const server = await HttpServer.listen({
      certificate: certificate?.current,
      ...config.http,
      limits: { ...config.http.limits, connectionsMax },
      log,
      warnings,
      monotonicClock: this.#monotonicClock,
      isHstsEnabled: config.isProduction && isReachedByHttps(config),
      challenge: bearer.challenge,
      onAnswered: (answered) => metrics.requestAnswered(answered),
      onUnreadable: (layer) => metrics.connectionUnreadable(layer),
      routes: [
        ...auth.routes(bearer),
        ...streaming.routes,
        ...publishRoutes({
          ...{ eventLog, wallClock },
          stopSignal: this.#stopController.signal,
          authenticate: async (exchange) => {
            const key = await bearer.authenticateService(exchange, 'publish');
            return { ...key, topicPatterns: key.topics };
          },
          limits: { ...config.publish, linesBytesMax: config.eventLog.bytesMax },
        }),
        ...adminRoutes({
          ...{ eventLog, tokens: streaming.tokens, disconnects, wallClock },
          ...{ memberships, revocations },
          listOpenStreams: streaming.listOpenStreams,
          ...{ audit: auth.audit, toClient },
          authenticate: (exchange, scope) => bearer.authenticateService(exchange, scope),
        }),
        ...this.#healthRoutes(db, auth),
        metricsRoute(metrics, (exchange) => bearer.authenticateService(exchange, 'metrics')),
        openApiRoute(),
      ],
    });
    this.#server = server;
    metrics.registerReaders(createReaders(db, clock, server, auth, eventLog, streaming));
    if (certificate !== undefined) metrics.registerCertificate(() => certificate.expiresAtMs);
    this.#closeStack.add('server', () =>
      server.close(Math.max(0, this.#destroyAt - performance.now())),
    );
  }

  /** Returns undefined without TLS. */
  async #openCertificate(wallClock: Clock): Promise<ServerCertificate | undefined> {
    const { http, isProduction } = this.#config;
    if (!http.tls) return undefined;
    this.#certificate = await ServerCertificate.open({
      ...{ files: http, wallClock, log: this.#log },
      isRenewalAllowed: !isProduction,
      onChange: (certificate) => this.#server?.setCertificate(certificate),
    });
    return this.#certificate;
  }

  #healthRoutes(db: HealthCheckedDatabase, auth: Auth) {
    return healthRoutes({
      checks: { serving: () => !this.#isStopping, logins: () => auth.threads.state.healthy },
      sharedChecks: {
        database: async () => {
          const degraded = await db.check();
          return degraded === undefined || { degraded };
        },
      },
    });
  }

  #startBackgroundTasks(
    clock: DatabaseClock,
    cleanUpTasks: Readonly<Record<string, () => Promise<number>>>,
    onTick: () => void,
  ): void {
    const tickTimer = setInterval(onTick, tickMs).unref();
    this.#closeStack.add('tick', () => clearInterval(tickTimer));
    const openFiles = new OpenFilesMonitor(this.#log);
    this.#closeStack.add('open files', () => openFiles.close());
    const cleanUp = CleanUp.start({
      tasks: cleanUpTasks,
      intervalMs: this.#config.cleanupIntervalMs,
      log: this.#log,
      isPaused: async () => {
        if (clock.isLocalClockWrong) await clock.measure();
        return clock.isLocalClockWrong;
      },
    });
    this.#closeStack.add('clean-up', () => cleanUp.close());
  }

  /**
   * Applies the control entries of sessions that have ended. When the promise resolves, the streams of
   * these sessions in this process are closed, unless the event log cannot be read.
   */
  async #endStreams(sessionIds: readonly string[]): Promise<void> {
    void this.#streaming?.streams.revokeTokens(sessionIds);
    await this.#eventLog?.tryCatchUp();
  }

  /**
   * Closes all streams and reports the failure, because the event log was replaced. When clients
   * reconnect, `stream.open` reports `epoch_changed`.
   */
  #endReplacedLog(): void {
    this.#streaming?.registry.startDraining();
    this.#streaming?.registry.closeAll('behind');
    this.#fail();
  }

  async #close(): Promise<void> {
    const { drainDelayMs, drainMs } = this.#config.http;
    this.#isStopping = true;
    if (drainDelayMs > 0) await wait(drainDelayMs);
    this.#destroyAt = performance.now() + drainMs - Math.min(closeComponentsMs, drainMs / 4);
    this.#server?.stopAccepting();
    this.#stopController.abort(
      new Failure('service_unavailable', 'Cannot publish more lines: the server is stopping', {
        retryAfterMs: 1000,
      }),
    );
    const registry = this.#streaming?.registry;
    if (registry !== undefined) {
      registry.startDraining();
      // Streams are closed in the first half of the time. In the second half clients read the closing
      // frames.
      const windowMs = drainMs / 2;
      const streams = [...registry.streams];
      await closeGradually(streams, { reason: 'draining', windowMs, random: this.#random });
    }
    await this.#closeStack.close(this.#destroyAt + closeComponentsMs);
  }
}

function createReaders(
  db: HealthCheckedDatabase,
  clock: DatabaseClock,
  server: HttpServer,
  { threads }: Auth,
  eventLog: EventLog,
  { registry }: Streaming,
): MetricReaders {
  return {
    connections: () => server.connections,
    connectionsRefused: () => server.connectionsRefused,
    streams: () => registry.size,
    streamUsers: () => registry.userCount,
    streamTopics: () => registry.topicCount,
    deliveries: () => registry.deliveryCount,
    eventLogPosition: () => eventLog.head,
    publishesWaiting: () => eventLog.waitingEvents,
    jobsWaiting: () => threads.state.queued,
    jobsRunning: () => threads.state.running,
    jobWaitMs: () => threads.state.estimatedWaitMs,
    threadCrashes: () => threads.state.crashes,
    clockOffsetMs: () => clock.offsetMs,
    walBytes: () => db.walBytes,
  };
}

/** Whether clients use HTTPS: Herald or, behind a proxy, the proxy terminates TLS. */
function isReachedByHttps({ http }: Config): boolean {
  return http.tls || http.trustProxyHops > 0;
}
