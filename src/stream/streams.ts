import { randomBytes } from 'node:crypto';
import { Failure } from '../errors.js';
import type { EventLog } from '../event-log/event-log.js';
import type { StreamStart } from '../event-log/resume-resolver.js';
import { getAudiences } from '../events/audience.js';
import { formatPosition } from '../events/event-id.js';
import { controlFrame, retryBytes } from '../events/frame.js';
import type { Sink } from '../http/reply.js';
import type { Logger } from '../logging/logger.js';
import {
  type CloseReason,
  EventStream,
  type EventStreamLimits,
  encodeClosing,
  type StreamEnd,
  type Subscriber,
} from './event-stream.js';
import type { OpenAborted, PendingOpen } from './pending-opens.js';
import type { RefusalReason, Registry } from './registry.js';
import type { StreamToken, StreamTokens } from './stream-token.js';
import { TokenLeakDetector } from './token-leak-detector.js';
import type { UserCount } from './user-count.js';
import { WriteScheduler } from './write-scheduler.js';

/** A session that has not ended. It expires at `expiresAt` (epoch ms) unless it is refreshed. */
export interface LiveSession {
  readonly id: string;
  readonly userId: string;
  readonly expiresAt: number;
}

/** A session as it was found for a stream that is being opened. It may have ended since. */
export interface SessionSnapshot extends LiveSession {
  readonly pendingOpen: PendingOpen;
}

/** Counters of stream events. */
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
  /** Returns the session unless it has ended. */
  readonly findLiveSession: (sessionId: string) => Promise<LiveSession | undefined>;
  readonly limits: EventStreamLimits;
  readonly metrics: StreamMetrics;
  readonly log: Logger;
  readonly wallClock: () => number;
  readonly monotonicClock: () => number;
  readonly random: () => number;
}

/** Parameters of a request for a stream. */
export interface StreamRequest {
  readonly session: SessionSnapshot;
  readonly token: StreamToken | undefined;
  readonly lastEventId: string | undefined;
  readonly ip: string;
  readonly requestId: string;
}

/** A stream that is ready to open once there is a sink. */
export interface PreparedStream {
  open(sink: Sink): void;
  /** Must be called when the stream is not opened. Idempotent. */
  cancel(): void;
}

/** Opens streams, and manages their tokens, session checks and log lines. */
export class Streams {
  readonly #parts: StreamsParts;
  readonly #scheduler = new WriteScheduler();
  readonly #leakDetector = new TokenLeakDetector();
  /** When the session of each stream has to be checked again, epoch ms. */
  readonly #sessionExpiries = new Map<EventStream, number>();
  /** Token releases in progress, for which `close` waits. */
  readonly #pendingReleases = new Set<Promise<void>>();
  /** Time of the last renewal of token leases, by `monotonicClock`. */
  #renewedAt: number;

  constructor(parts: StreamsParts) {
    this.#parts = parts;
    this.#renewedAt = parts.monotonicClock();
  }

  /**
   * Looks up the session of a stream that is being opened, and passes it to `work`. If `work` resolves,
   * its result must open or cancel the prepared stream later. Control entries are applied to the
   * stream from before the lookup on. Throws `invalid_token` when the session has ended, and the
   * errors of `work`.
   */
  async withSession<Result>(
    sessionId: string,
    work: (session: SessionSnapshot) => Promise<Result>,
  ): Promise<Result> {
    const { findLiveSession, registry } = this.#parts;
    const pendingOpen = registry.pendingOpens.add(sessionId);
    try {
      const session = await findLiveSession(sessionId);
      if (session !== undefined) return await work({ ...session, pendingOpen });
      throw new Failure('invalid_token', 'Cannot open stream: its session has ended');
    } catch (cause) {
      registry.pendingOpens.remove(pendingOpen);
      throw cause;
    }
  }

  /** Returns why this client cannot open a stream now; undefined if it can. */
  checkLimits({ session, token, ip }: StreamRequest): RefusalReason | undefined {
    return this.#parts.registry.checkLimits({ userId: session.userId, ip, tokenHash: token?.hash });
  }

  /**
   * Records that a token is about to be opened from an address. Returns true if too many
   * addresses use the token; the token is then deleted, and its stream is closed.
   */
  async revokeIfLeaked(token: StreamToken, ipKey: string): Promise<boolean> {
    const { registry, tokens, monotonicClock } = this.#parts;
    if (!token.isInUse || !this.#leakDetector.recordTakeover(token.hash, ipKey, monotonicClock()))
      return false;
    await tokens.invalidate(token.hash);
    registry.findByToken(token.hash)?.close('revoked');
    return true;
  }

  /**
   * Resolves the start position and marks the token as opened. Throws the errors of
   * `StreamTokens.open`.
   */
  async prepare(request: StreamRequest): Promise<PreparedStream> {
    const { eventLog, registry, tokens } = this.#parts;
    const { session, token, ip } = request;
    const streamId = randomBytes(16).toString('hex');
    const audiences = getAudiences(session.userId, session.id);
    const subscriber: Subscriber = {
      userId: session.userId,
      sessionId: session.id,
      audiences,
      ip,
      tokenHash: token?.hash,
    };
    const start = await this.#resolveStart(request, audiences);
    if (token !== undefined) {
      const position = formatPosition({ epoch: eventLog.epoch, seq: start.seq });
      await tokens.open(token, streamId, position);
    }
    return {
      open: (sink) => this.#open({ streamId, subscriber, start, session }, sink),
      cancel: () => registry.pendingOpens.remove(session.pendingOpen),
    };
  }

  /**
   * Sends due heartbeats and counts, checks sessions that may have expired, and renews leases when due.
   * Call it every `tickMs`.
   */
  tick(): void {
    const { registry, userCount, wallClock, monotonicClock, tokens } = this.#parts;
    registry.tick();
    userCount.tick();
    const now = wallClock();
    for (const [stream, expiresAt] of this.#sessionExpiries) {
      if (expiresAt > now) continue;
      this.#sessionExpiries.set(stream, Number.POSITIVE_INFINITY); // Until the check returns.
      void this.#recheckSession(stream);
    }
    if (monotonicClock() - this.#renewedAt >= tokens.renewEveryMs) {
      this.#renewedAt = monotonicClock();
      void this.#renew();
    }
  }

  /** The subscriber of each open stream. */
  get subscribers(): readonly Subscriber[] {
    return [...this.#sessionExpiries.keys()].map(({ subscriber }) => subscriber);
  }

  /**
   * Deletes the tokens of sessions that have ended. Never rejects. A token that could not be
   * deleted cannot be opened either, because opening it looks up its session.
   */
  async revokeTokens(sessionIds: readonly string[]): Promise<void> {
    const { tokens, log } = this.#parts;
    try {
      await tokens.revoke(sessionIds);
    } catch (cause) {
      log.warn({ cause }, 'stream tokens of ended sessions could not be deleted');
    }
  }

  /** Waits until the tokens of ended streams are released. */
  async close(): Promise<void> {
    await Promise.all(this.#pendingReleases);
  }

  #resolveStart(
    { token, lastEventId }: StreamRequest,
    audiences: readonly string[],
  ): Promise<StreamStart> {
    const { eventLog } = this.#parts;
    // A client that opens its token again without a Last-Event-ID has received no event, so its stream
    // starts where its first stream started.
    const storedPosition = lastEventId === undefined ? token?.startPosition : undefined;
    if (storedPosition !== undefined) return eventLog.resolvePosition(audiences, storedPosition);
    return eventLog.resolveLastEventId(audiences, lastEventId);
  }

  #open(
    opening: {
      streamId: string;
      subscriber: Subscriber;
      start: StreamStart;
      session: SessionSnapshot;
    },
    sink: Sink,
  ): void {
    const { registry, userCount, eventLog, limits, metrics, monotonicClock, random, log } =
      this.#parts;
    const { streamId, subscriber, start, session } = opening;
    const { aborted } = session.pendingOpen;
    registry.pendingOpens.remove(session.pendingOpen); // From here on the registry applies control entries.
    if (aborted !== undefined) {
      this.#abortOpen(sink, aborted);
      return;
    }
    const refusal = registry.checkLimits(subscriber);
    if (refusal !== undefined) {
      this.refuse(sink, refusal);
      return;
    }
    const stream = new EventStream({
      id: streamId,
      subscriber,
      start,
      sink,
      eventLog,
      scheduler: this.#scheduler,
      limits,
      monotonicClock,
      random,
      onEnd: (ended, ending) => this.#handleEnd(ended, ending),
    });
    log.info(
      { streamId, userId: subscriber.userId, sessionId: subscriber.sessionId, ...start },
      'stream opened',
    );
    metrics.streamOpened(start.reason);
    registry.add(stream); // Before replay starts, so that no event falls between them.
    userCount.add(stream);
    this.#sessionExpiries.set(stream, session.expiresAt);
    stream.open();
  }

  /** Sends only `stream.close`, for a stream whose open was aborted before it was registered. */
  #abortOpen(sink: Sink, reason: OpenAborted): void {
    this.#parts.metrics.streamRefused(reason);
    sink.end(encodeClosing(reason, this.refusalRetryMs()));
  }

  /**
   * Returns after how many ms a refused client should retry, random, so that clients do not return
   * together: 10 to 30 s, or 1 to 3 times `retryMs` while draining, because another process takes over
   * soon.
   */
  refusalRetryMs(): number {
    const { registry, random, limits } = this.#parts;
    const minMs = registry.isDraining ? limits.retryMs : 10_000;
    return Math.round(minMs * (1 + 2 * random()));
  }

  /**
   * Refuses a stream with `retry:` and `stream.close` in its body. This is for the EventSource of
   * browsers, which never reconnects after a status other than 200.
   */
  refuse(sink: Sink, reason: string): void {
    this.#parts.metrics.streamRefused(reason);
    const { bytes } = controlFrame('stream.close', { code: 'refused', reconnect: true });
    sink.end(Buffer.concat([retryBytes(this.refusalRetryMs()), bytes]));
  }

  /** Closes the stream as `expired` if its session has ended. Never rejects. */
  async #recheckSession(stream: EventStream): Promise<void> {
    const { findLiveSession, wallClock, log } = this.#parts;
    try {
      const session = await findLiveSession(stream.subscriber.sessionId);
      if (!stream.isOpen) return;
      if (session === undefined) return stream.close('expired');
      this.#sessionExpiries.set(stream, session.expiresAt);
    } catch (cause) {
      // The database is unavailable. The stream stays open and is checked again.
      if (stream.isOpen) this.#sessionExpiries.set(stream, wallClock() + 5000);
      log.warn({ cause, streamId: stream.id }, 'session could not be looked up');
    }
  }

  #handleEnd(stream: EventStream, { reason, cause }: StreamEnd): void {
    const { registry, userCount, tokens, monotonicClock, log } = this.#parts;
    const { id, subscriber, openedAt, writtenBytes } = stream;
    registry.remove(stream);
    userCount.remove(stream);
    this.#parts.metrics.streamClosed(reason);
    this.#sessionExpiries.delete(stream);
    const fields = {
      streamId: id,
      userId: subscriber.userId,
      sessionId: subscriber.sessionId,
      reason,
    };
    const totals = { ms: Math.round(monotonicClock() - openedAt), bytes: writtenBytes };
    if (reason === 'failed') log.error({ ...fields, ...totals, cause }, 'stream closed');
    else log.info({ ...fields, ...totals }, 'stream closed');
    if (subscriber.tokenHash === undefined) return;
    const releasing = tokens
      .release(subscriber.tokenHash, id)
      .catch((error: unknown) =>
        log.warn({ cause: error, streamId: id }, 'stream token could not be released'),
      )
      .finally(() => this.#pendingReleases.delete(releasing));
    this.#pendingReleases.add(releasing);
  }

  async #renew(): Promise<void> {
    const { tokens, log } = this.#parts;
    const hashes = [...this.#sessionExpiries.keys()].flatMap(
      ({ subscriber }) => subscriber.tokenHash ?? [],
    );
    try {
      await tokens.renew(hashes);
    } catch (cause) {
      log.warn({ cause }, 'stream token leases could not be renewed, retrying');
    }
  }
}
