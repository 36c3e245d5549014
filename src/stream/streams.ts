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
  type StreamEnd,
  type Subscriber,
} from './event-stream.js';
import type { RefusalReason, Registry } from './registry.js';
import type { StreamToken, StreamTokens } from './stream-token.js';
import { TokenLeakDetector } from './token-leak-detector.js';
import type { UserCount } from './user-count.js';
import { WriteScheduler } from './write-scheduler.js';

/** A login that still lives, and until when it does unless it is refreshed (epoch ms). */
export interface LiveSession {
  readonly id: string;
  readonly userId: string;
  readonly expiresAt: number;
}

/** A session as it was found, and when: what was ended since may be this one. */
export interface SessionSnapshot extends LiveSession {
  /** As `uptime` counts. */
  readonly readAt: number;
  /** How often sessions had been ended in this process by then. */
  readonly endedCount: number;
}

/** Who counts what becomes of streams. */
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
  /** The session if it still lives. */
  readonly findLiveSession: (sessionId: string) => Promise<LiveSession | undefined>;
  readonly limits: EventStreamLimits;
  readonly metrics: StreamMetrics;
  readonly log: Logger;
  readonly wallClock: () => number;
  readonly monotonicClock: () => number;
  readonly random: () => number;
}

/** What a client asks for when it opens a stream. */
export interface StreamRequest {
  readonly session: SessionSnapshot;
  readonly token: StreamToken | undefined;
  readonly lastEventId: string | undefined;
  readonly ip: string;
  readonly requestId: string;
}

/** A stream that may begin: everything has been looked up, only the sink is missing. */
export interface PreparedStream {
  open(sink: Sink): void;
}

/** Sessions that others end are heard of with seconds to spare: so much of them an opening may use up. */
const snapshotAgeMaxMs = 1000;

/** Opens streams and looks after what belongs to them: their tokens, sessions and log lines. */
export class Streams {
  readonly #parts: StreamsParts;
  readonly #scheduler = new WriteScheduler();
  readonly #leakDetector = new TokenLeakDetector();
  /** When the session of a stream has to be looked at again, epoch ms. */
  readonly #sessionExpiries = new Map<EventStream, number>();
  /** Releases under way: `close` waits for them. */
  readonly #pendingReleases = new Set<Promise<void>>();
  /** How often sessions have been ended in this process. */
  #endedCount = 0;
  /** As `uptime` counts. */
  #renewedAt: number;

  constructor(parts: StreamsParts) {
    this.#parts = parts;
    this.#renewedAt = parts.monotonicClock();
  }

  /** The session of a stream to be. Throws `invalid_token` when it has ended. */
  async snapshotSession(sessionId: string): Promise<SessionSnapshot> {
    const { findLiveSession, monotonicClock } = this.#parts;
    const noted = { readAt: monotonicClock(), endedCount: this.#endedCount };
    const session = await findLiveSession(sessionId);
    if (session !== undefined) return { ...session, ...noted };
    throw new Failure('invalid_token', 'Cannot open stream: its session has ended');
  }

  /** Why this client cannot have a stream now. */
  checkLimits({ session, token, ip }: StreamRequest): RefusalReason | undefined {
    return this.#parts.registry.checkLimits({ userId: session.userId, ip, tokenHash: token?.hash });
  }

  /**
   * To be called before a token is opened again from a place. True when it is in too many hands: then
   * it opens nothing any more, and its stream ends.
   */
  async revokeIfLeaked(token: StreamToken, ipKey: string): Promise<boolean> {
    const { registry, tokens, monotonicClock } = this.#parts;
    if (!token.isInUse || !this.#leakDetector.recordTakeover(token.hash, ipKey, monotonicClock()))
      return false;
    await tokens.invalidate(token.hash);
    registry.findByToken(token.hash)?.close('revoked');
    return true;
  }

  /** Finds where the stream starts and marks its token as opened. Throws as `StreamTokens.open`. */
  async prepare(request: StreamRequest): Promise<PreparedStream> {
    const { eventLog, tokens } = this.#parts;
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
    return { open: (sink) => this.#open({ streamId, subscriber, start, session }, sink) };
  }

  /** To be called once a second: everything that has a time of its own. */
  tick(): void {
    const { registry, userCount, wallClock, monotonicClock, tokens } = this.#parts;
    registry.tick();
    userCount.tick();
    const now = wallClock();
    for (const [stream, expiresAt] of this.#sessionExpiries) {
      if (expiresAt > now) continue;
      this.#sessionExpiries.set(stream, Number.POSITIVE_INFINITY); // Until that is answered.
      void this.#recheckSession(stream);
    }
    if (monotonicClock() - this.#renewedAt >= tokens.renewEveryMs) {
      this.#renewedAt = monotonicClock();
      void this.#renew();
    }
  }

  /** Who has a stream open; somebody with several is there several times. */
  get subscribers(): readonly Subscriber[] {
    return [...this.#sessionExpiries.keys()].map(({ subscriber }) => subscriber);
  }

  /**
   * Ends the streams of sessions that are over, before it returns, and their tokens. Never rejects:
   * a token that could not be deleted opens nothing, for its session is looked at.
   */
  async endSessions(sessionIds: readonly string[]): Promise<void> {
    const { registry, tokens, log } = this.#parts;
    this.#endedCount += 1;
    registry.closeSessions(sessionIds, 'revoked');
    try {
      await tokens.revoke(sessionIds);
    } catch (cause) {
      log.warn({ cause }, 'stream tokens of ended sessions could not be deleted');
    }
  }

  /** Waits until the tokens of ended streams are written back. */
  async close(): Promise<void> {
    await Promise.all(this.#pendingReleases);
  }

  #resolveStart(
    { token, lastEventId }: StreamRequest,
    audiences: readonly string[],
  ): Promise<StreamStart> {
    const { eventLog } = this.#parts;
    // A token that comes back without a Last-Event-ID has seen nothing yet: it starts where it did.
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
    registry.add(stream); // First hear of what is new, then read what is old.
    userCount.add(stream);
    this.#sessionExpiries.set(stream, session.expiresAt);
    stream.open();
    // Between its look-up and the registration it may have been ended, and this stream not with it.
    const mayHaveEnded =
      session.endedCount !== this.#endedCount ||
      monotonicClock() - session.readAt > snapshotAgeMaxMs;
    if (mayHaveEnded) void this.#recheckSession(stream);
  }

  /**
   * When a client that is turned away should try again: spread, or all come back together. Soon when
   * this process stops, for another takes over or the next one starts.
   */
  refusalRetryMs(): number {
    const { registry, random, limits } = this.#parts;
    const minMs = registry.isDraining ? limits.retryMs : 10_000;
    return Math.round(minMs * (1 + 2 * random()));
  }

  /** Tells a native EventSource, for which any status but 200 is final, to come back later. */
  refuse(sink: Sink, reason: string): void {
    this.#parts.metrics.streamRefused(reason);
    const { bytes } = controlFrame('stream.close', { code: 'refused', reconnect: true });
    sink.end(Buffer.concat([retryBytes(this.refusalRetryMs()), bytes]));
  }

  /** Ends the stream unless its session still lives. Never rejects. */
  async #recheckSession(stream: EventStream): Promise<void> {
    const { findLiveSession, wallClock, log } = this.#parts;
    try {
      const session = await findLiveSession(stream.subscriber.sessionId);
      if (!stream.isOpen) return;
      if (session === undefined) return stream.close('expired');
      this.#sessionExpiries.set(stream, session.expiresAt);
    } catch (cause) {
      // The database is away: the stream stays open and is looked at again.
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
    const numbers = { ms: Math.round(monotonicClock() - openedAt), bytes: writtenBytes };
    if (reason === 'failed') log.error({ ...fields, ...numbers, cause }, 'stream closed');
    else log.info({ ...fields, ...numbers }, 'stream closed');
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
