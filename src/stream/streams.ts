import { randomBytes } from 'node:crypto';
import { Failure } from '../errors.js';
import type { EventLog } from '../event-log/event-log.js';
import type { LogState } from '../event-log/log-store.js';
import type { StreamStart } from '../event-log/resume-resolver.js';
import { getAudiences } from '../events/audience.js';
import type { Sink } from '../http/reply.js';
import type { Logger } from '../logging/logger.js';
import type { WarningAggregator } from '../logging/warning-aggregator.js';
import { type CloseReason, encodeClosing, pickRetryMs } from './control-events.js';
import {
  EventStream,
  type EventStreamLimits,
  type StreamClient,
  type StreamEnd,
  type Subscriber,
} from './event-stream.js';
import type { PendingOpen } from './pending-opens.js';
import type { RefusalReason, Registry } from './registry.js';
import { type LiveSession, SessionChecks } from './session-checks.js';
import { invalidStreamToken, type StreamToken, type StreamTokens } from './tokens/stream-token.js';
import { TokenClaim, type TokenClaimParts } from './tokens/token-claim.js';
import type { TokenHolders } from './tokens/token-holders.js';
import { TokenLeakDetector } from './tokens/token-leak-detector.js';
import { TokenReleases } from './tokens/token-releases.js';
import type { StoredTopics, TopicLookup } from './topics/topic-lookup.js';
import { TopicRows } from './topics/topic-rows.js';
import type { UserCount } from './user-count.js';
import { WriteScheduler } from './write-scheduler.js';

/** The data that was read for a stream that is being opened. The stored data may have changed since. */
export interface OpenSnapshot {
  readonly pendingOpen: PendingOpen;
  /** The state of the event log, read before the token and the session. */
  readonly logState: LogState;
  /** Undefined for a stream opened with an access token. */
  readonly token: StreamToken | undefined;
  readonly session: LiveSession;
  /** Read last. No removal of a topic in it is newer than the state of the event log. */
  readonly topics: StoredTopics;
}

/** Returns a session that has not ended. Throws `invalid_token` otherwise. */
export type FindSession = () => Promise<LiveSession>;

/** Counts streams that were opened, closed and refused. */
export interface StreamMetrics {
  streamOpened(start: StreamStart['reason']): void;
  streamClosed(reason: CloseReason): void;
  streamRefused(reason: string): void;
}

export interface StreamsParts {
  readonly registry: Registry;
  readonly userCount: UserCount;
  readonly eventLog: EventLog;
  readonly tokens: StreamTokens;
  readonly holders: TokenHolders;
  readonly topicLookup: Pick<TopicLookup, 'read'>;
  /** Returns the session, or undefined if it has ended. */
  readonly findLiveSession: (sessionId: string) => Promise<LiveSession | undefined>;
  readonly limits: EventStreamLimits;
  readonly metrics: StreamMetrics;
  readonly log: Logger;
  readonly warnings: Pick<WarningAggregator, 'warn'>;
  readonly wallClock: () => number;
  readonly monotonicClock: () => number;
  readonly random: () => number;
}

/** Parameters of a stream request. */
export interface StreamRequest {
  readonly snapshot: OpenSnapshot;
  readonly lastEventId: string | undefined;
  /** The client's address as returned by `toIpKey`. */
  readonly ipKey: string;
  readonly client: StreamClient;
  /** Whether heartbeats are events, see `EventStreamParts`. */
  readonly hasHeartbeatEvents: boolean;
}

/** The parameters of a stream whose response has begun. */
interface OpeningStream {
  readonly id: string;
  readonly snapshot: OpenSnapshot;
  readonly start: StreamStart;
  readonly topics: TopicRows;
  readonly client: StreamClient;
  readonly hasHeartbeatEvents: boolean;
  readonly sink: Sink;
}

/** A stream that is ready to be opened on a sink. */
export interface PreparedStream {
  open(sink: Sink): void;
  /** Must be called if the stream is not opened. Idempotent. */
  cancel(): void;
}

/** How a client asks for a stream: with a stream token, or with an access token, whose session is then found. */
type StreamCredential = { readonly tokenText: string } | { readonly findSession: FindSession };

/** Number of times that the data for a stream is read, if entries were trimmed or topics removed meanwhile. */
const readsMax = 3;

/** Opens streams, and manages their tokens, their sessions and log lines. */
export class Streams {
  readonly #parts: StreamsParts;
  readonly #scheduler = new WriteScheduler();
  readonly #leakDetector = new TokenLeakDetector();
  readonly #sessionChecks: SessionChecks;
  readonly #releases: TokenReleases;
  readonly #claimParts: TokenClaimParts;
  /** Time of the last renewal of token leases, by `monotonicClock`. */
  #renewedAt: number;

  constructor(parts: StreamsParts) {
    this.#parts = parts;
    const { holders, eventLog, tokens, findLiveSession, wallClock, random, log } = parts;
    this.#sessionChecks = new SessionChecks({ findLiveSession, log, wallClock });
    this.#releases = new TokenReleases(holders, log);
    const onTakeover = () => void eventLog.tryCatchUp();
    const keepAlive = (hash: string, waitMs: number) => tokens.keepAlive(hash, waitMs);
    this.#claimParts = { holders, releases: this.#releases, onTakeover, keepAlive, random };
    this.#renewedAt = parts.monotonicClock();
  }

  /**
   * Reads the data that is needed to open a stream, and passes it to `work`. If `work` resolves, the stream
   * that it prepared must be opened or cancelled later.
   *
   * The head of the event log is read before the token and the session, so these reflect all control
   * entries up to that head, and the stream ignores those entries. Later entries are kept for the stream
   * from before the first read on. The stream starts at that head or earlier.
   *
   * Throws the errors of `StreamTokens.find` and `findSession`, `invalid_token` when the session has ended,
   * `service_unavailable` when topics of the user are removed or entries trimmed during each of three reads, and
   * the errors of `work`.
   */
  async withSnapshot<Result>(
    credential: StreamCredential,
    work: (snapshot: OpenSnapshot) => Promise<Result>,
  ): Promise<Result> {
    const { registry } = this.#parts;
    const pendingOpen = registry.pendingOpens.add();
    try {
      return await work({ pendingOpen, ...(await this.#readSnapshot(credential)) });
    } catch (cause) {
      registry.pendingOpens.remove(pendingOpen);
      throw cause;
    }
  }

  /** Returns the reason why this client cannot open a stream now; undefined if it can. */
  checkLimits({ snapshot, ipKey }: StreamRequest): RefusalReason | undefined {
    const { userId } = snapshot.session;
    const { hash: tokenHash, publicId } = snapshot.token ?? {};
    return this.#parts.registry.checkLimits({ userId, ipKey, tokenHash, publicId });
  }

  /**
   * Records that a token is about to be opened from an address. Returns true if the token has leaked (see
   * `TokenLeakDetector`); it is then deleted, and its streams are closed in every process.
   */
  async revokeIfLeaked(token: StreamToken, ipKey: string): Promise<boolean> {
    const { eventLog, tokens, monotonicClock } = this.#parts;
    const isTakeover = token.holder !== undefined;
    if (!isTakeover || !this.#leakDetector.recordTakeover(token.hash, ipKey, monotonicClock()))
      return false;
    await tokens.revokeLeaked(token.hash);
    await eventLog.tryCatchUp();
    return true;
  }

  /**
   * Prepares a stream: resolves its start position, and in mode `single` claims its token. Throws
   * `invalid_token` if that token has already been claimed.
   */
  async prepare(request: StreamRequest): Promise<PreparedStream> {
    const { snapshot, lastEventId, ipKey, client, hasHeartbeatEvents } = request;
    const { eventLog, registry, tokens } = this.#parts;
    const { session, token, logState, pendingOpen } = snapshot;
    const id = randomBytes(16).toString('hex');
    const audiences = getAudiences(session.userId, session.id);
    const beginning = token?.beginning;
    const topics = new TopicRows(audiences, snapshot.topics.rows);
    const start = await eventLog.resolveStart(logState, topics.reader, {
      ...{ lastEventId, beginning, lossSeq: snapshot.topics.lossSeq },
    });
    if (token !== undefined && tokens.mode === 'single') await this.#claimSingle(token, id);
    const subscriber = { userId: session.userId, sessionId: session.id, audiences, ipKey };
    return {
      open: (sink) =>
        this.#open(
          { id, snapshot, start, topics, client, hasHeartbeatEvents, sink },
          { ...subscriber, tokenHash: token?.hash },
        ),
      cancel: () => registry.pendingOpens.remove(pendingOpen),
    };
  }

  /**
   * Sends heartbeats and the user count, looks up sessions that may have expired, stores the expiry of
   * tokens that are kept alive, and renews leases, each when due. Call it every `tickMs`.
   */
  tick(): void {
    const { registry, userCount, monotonicClock, holders } = this.#parts;
    registry.tick();
    userCount.tick();
    void this.#storeKeptAlive();
    this.#sessionChecks.tick();
    if (monotonicClock() - this.#renewedAt >= holders.renewEveryMs) {
      this.#renewedAt = monotonicClock();
      void this.#renew();
    }
  }

  /** The subscriber of each open stream. */
  get subscribers(): readonly Subscriber[] {
    return this.#sessionChecks.streams.map(({ subscriber }) => subscriber);
  }

  /**
   * Deletes the tokens of sessions that have ended. Never rejects. A token that could not be
   * deleted cannot be opened either, because opening it looks up its session.
   */
  async revokeTokens(sessionIds: readonly string[]): Promise<void> {
    const { tokens, log } = this.#parts;
    try {
      await tokens.deleteBySessions(sessionIds);
    } catch (cause) {
      log.warn({ cause }, 'stream tokens of ended sessions could not be deleted');
    }
  }

  /** Waits until the tokens of ended streams are released and the tokens of refused clients are stored. */
  async close(): Promise<void> {
    await this.#releases.idle();
    await this.#storeKeptAlive();
  }

  /**
   * Reads the head of the event log, the token, the session and the topics, in this order. If a topic was removed or
   * entries were trimmed after that head, all is read again: events before the removal may be missing.
   */
  async #readSnapshot(credential: StreamCredential): Promise<Omit<OpenSnapshot, 'pendingOpen'>> {
    const { eventLog, topicLookup } = this.#parts;
    for (let reads = 0; reads < readsMax; reads += 1) {
      const logState = await eventLog.readState();
      const { token, session } =
        'findSession' in credential
          ? { token: undefined, session: await credential.findSession() }
          : await this.#findTokenSession(credential.tokenText);
      const topics = await topicLookup.read({ userId: session.userId, tokenHash: token?.hash });
      if (Math.max(topics.lossSeq, topics.trimmedSeq) <= logState.seq)
        return { logState, token, session, topics };
    }
    const message = 'Cannot open stream: topics of the user are being removed';
    throw new Failure('service_unavailable', message, { retryAfterMs: 1000 });
  }

  async #findTokenSession(tokenText: string) {
    const token = await this.#parts.tokens.find(tokenText);
    return { token, session: await this.#findSession(token) };
  }

  /** Returns the session of a token. Throws `invalid_token` if the session has ended. */
  async #findSession(token: StreamToken): Promise<LiveSession> {
    const { sessionId: id, userId, endsAt: expiresAt } = token;
    if (expiresAt !== undefined) return { id, userId, expiresAt, isForeign: true };
    const session = await this.#parts.findLiveSession(id);
    if (session !== undefined) return session;
    throw new Failure('invalid_token', 'Cannot open stream: its session has ended');
  }

  async #claimSingle(token: StreamToken, streamId: string): Promise<void> {
    const claim = { tokenHash: token.hash, state: token, streamId };
    if (!(await this.#parts.holders.claim(claim))) throw invalidStreamToken();
  }

  #open({ snapshot, ...opening }: OpeningStream, subscriber: Subscriber): void {
    const { registry, userCount, eventLog, limits, metrics, monotonicClock, random, log, tokens } =
      this.#parts;
    const { token, session, pendingOpen, logState } = snapshot;
    const refusal = registry.checkLimits({ ...subscriber, publicId: token?.publicId });
    if (refusal !== undefined) {
      registry.pendingOpens.remove(pendingOpen);
      const retryMs = this.pickRefusalRetryMs();
      if (token !== undefined) tokens.keepAlive(token.hash, retryMs);
      this.refuse(opening.sink, refusal, retryMs);
      return;
    }
    const needsClaim = token !== undefined && tokens.mode !== 'single';
    const stream = new EventStream({
      ...{ ...opening, subscriber, eventLog, limits, monotonicClock, random },
      publicId: token?.publicId ?? opening.id,
      openedAt: this.#parts.wallClock(),
      endsAt: session.expiresAt,
      headAtOpen: logState.seq,
      claim: needsClaim ? new TokenClaim(token, this.#claimParts) : undefined,
      scheduler: this.#scheduler,
      onEnd: (ended, ending) => this.#handleEnd(ended, ending),
    });
    log.info(
      {
        streamId: opening.id,
        ...{ userId: subscriber.userId, sessionId: subscriber.sessionId },
        ...opening.start,
      },
      'stream opened',
    );
    metrics.streamOpened(opening.start.reason);
    userCount.add(stream);
    this.#sessionChecks.add(stream, session);
    registry.add(stream, pendingOpen); // Before replay starts, so that no event is missed.
    if (stream.isOpen) stream.open();
  }

  /**
   * Returns the time in ms after which a refused client should retry: 10 to 30 s, or 1 to 3 times `retryMs` while
   * draining, because another process takes over soon. Random, so that clients do not retry together.
   */
  pickRefusalRetryMs(): number {
    const { registry, random, limits } = this.#parts;
    const minMs = registry.isDraining ? limits.retryMs : 10_000;
    return pickRetryMs(minMs, random);
  }

  /**
   * Refuses a stream with a `stream.close` in the body, which asks the client to retry after `retryMs`. The
   * status stays 200, because the EventSource of a browser never reconnects after another status.
   */
  refuse(sink: Sink, reason: string, retryMs: number): void {
    this.#parts.metrics.streamRefused(reason);
    sink.end(encodeClosing('refused', retryMs));
  }

  #handleEnd(stream: EventStream, { reason, cause }: StreamEnd): void {
    const { registry, userCount, monotonicClock, log } = this.#parts;
    const { id, subscriber, startedAt, writtenBytes } = stream;
    registry.remove(stream);
    userCount.remove(stream);
    this.#parts.metrics.streamClosed(reason);
    this.#sessionChecks.remove(stream);
    const fields = {
      streamId: id,
      userId: subscriber.userId,
      sessionId: subscriber.sessionId,
      reason,
    };
    const totals = { ms: Math.round(monotonicClock() - startedAt), bytes: writtenBytes };
    if (reason === 'failed') log.error({ ...fields, ...totals, cause }, 'stream closed');
    else log.info({ ...fields, ...totals }, 'stream closed');
  }

  /** Never rejects. */
  async #storeKeptAlive(): Promise<void> {
    const { tokens, warnings } = this.#parts;
    try {
      await tokens.storeKeptAlive();
    } catch (cause) {
      const phrase = 'stream tokens of refused clients could not be kept alive, retrying';
      warnings.warn({ kind: phrase, subject: '', fields: { cause }, phrase });
    }
  }

  async #renew(): Promise<void> {
    const { holders, log } = this.#parts;
    const hashes = this.subscribers.flatMap(({ tokenHash }) => tokenHash ?? []);
    try {
      await holders.renew(hashes);
    } catch (cause) {
      log.warn({ cause }, 'stream token leases could not be renewed, retrying');
    }
  }
}
