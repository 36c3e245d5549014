import { randomBytes } from 'node:crypto';
import { Failure } from '../errors.js';
import type { EventLog } from '../event-log/event-log.js';
import type { Start } from '../event-log/resume-resolver.js';
import { audiencesOf } from '../events/audience.js';
import { formatPosition } from '../events/event-id.js';
import { controlFrame, retryBytes } from '../events/frame.js';
import type { Sink } from '../http/reply.js';
import type { Log } from '../logging/log.js';
import {
  type CloseReason,
  Connection,
  type ConnectionLimits,
  type Ending,
  type Reader,
} from './event-stream.js';
import type { Refusal, Registry } from './registry.js';
import type { StreamToken, StreamTokens } from './stream-token.js';
import { TakeoverWatch } from './token-leak-detector.js';
import type { UserCount } from './user-count.js';
import { Outbox } from './write-scheduler.js';

/** A login that still lives, and until when it does unless it is refreshed (epoch ms). */
export interface LiveSession {
  readonly id: string;
  readonly userId: string;
  readonly expiresAt: number;
}

/** A session as it was found, and when: what was ended since may be this one. */
export interface FoundSession extends LiveSession {
  /** As `uptime` counts. */
  readonly foundAt: number;
  /** How often sessions had been ended in this process by then. */
  readonly endings: number;
}

/** Who counts what becomes of streams. */
export interface StreamMetrics {
  streamOpened(start: Start['reason']): void;
  streamClosed(reason: CloseReason): void;
  streamRefused(reason: string): void;
}

export interface StreamsParts {
  readonly registry: Registry;
  readonly userCount: UserCount;
  readonly eventLog: EventLog;
  readonly tokens: StreamTokens;
  /** The session if it still lives. */
  readonly liveSession: (sessionId: string) => Promise<LiveSession | undefined>;
  readonly limits: ConnectionLimits;
  readonly metrics: StreamMetrics;
  readonly log: Log;
  readonly clock: () => number;
  readonly uptime: () => number;
  readonly random: () => number;
}

/** What a client asks for when it opens a stream. */
export interface StreamRequest {
  readonly session: FoundSession;
  readonly token: StreamToken | undefined;
  readonly lastEventId: string | undefined;
  readonly ip: string;
  readonly requestId: string;
}

/** A stream that may begin: everything has been looked up, only the sink is missing. */
export interface ReadyStream {
  open(sink: Sink): void;
}

/** Sessions that others end are heard of with seconds to spare: so much of them an opening may use up. */
const openingMsMax = 1000;

/** Opens streams and looks after what belongs to them: their tokens, sessions and log lines. */
export class Streams {
  readonly #parts: StreamsParts;
  readonly #outbox = new Outbox();
  readonly #takeovers = new TakeoverWatch();
  /** When the session of a stream has to be looked at again, epoch ms. */
  readonly #sessionEnds = new Map<Connection, number>();
  /** Releases under way: `close` waits for them. */
  readonly #releasing = new Set<Promise<void>>();
  /** How often sessions have been ended in this process. */
  #endings = 0;
  /** As `uptime` counts. */
  #renewedAt: number;

  constructor(parts: StreamsParts) {
    this.#parts = parts;
    this.#renewedAt = parts.uptime();
  }

  /** The session of a stream to be. Throws `invalid_token` when it has ended. */
  async sessionOf(sessionId: string): Promise<FoundSession> {
    const { liveSession, uptime } = this.#parts;
    const noted = { foundAt: uptime(), endings: this.#endings };
    const session = await liveSession(sessionId);
    if (session !== undefined) return { ...session, ...noted };
    throw new Failure('invalid_token', 'Cannot open stream: its session has ended');
  }

  /** Why this client cannot have a stream now. */
  refusalFor({ session, token, ip }: StreamRequest): Refusal | undefined {
    return this.#parts.registry.refusalFor({ userId: session.userId, ip, tokenHash: token?.hash });
  }

  /**
   * To be called before a token is opened again from a place. True when it is in too many hands: then
   * it opens nothing any more, and its stream ends.
   */
  async endIfLeaked(token: StreamToken, place: string): Promise<boolean> {
    const { registry, tokens, uptime } = this.#parts;
    if (!token.isTaken || !this.#takeovers.note(token.hash, place, uptime())) return false;
    await tokens.forget(token.hash);
    registry.onToken(token.hash)?.close('revoked');
    return true;
  }

  /** Finds where the stream starts and marks its token as opened. Throws as `StreamTokens.open`. */
  async prepare(request: StreamRequest): Promise<ReadyStream> {
    const { eventLog, tokens } = this.#parts;
    const { session, token, ip } = request;
    const connectionId = randomBytes(16).toString('hex');
    const audiences = audiencesOf(session.userId, session.id);
    const reader: Reader = {
      userId: session.userId,
      sessionId: session.id,
      audiences,
      ip,
      tokenHash: token?.hash,
    };
    const start = await this.#startOf(request, audiences);
    if (token !== undefined) {
      const position = formatPosition({ epoch: eventLog.epoch, seq: start.seq });
      await tokens.open(token, connectionId, position);
    }
    return { open: (sink) => this.#open({ connectionId, reader, start, session }, sink) };
  }

  /** To be called once a second: everything that has a time of its own. */
  tick(): void {
    const { registry, userCount, clock, uptime, tokens } = this.#parts;
    registry.tick();
    userCount.tick();
    const now = clock();
    for (const [connection, endsAt] of this.#sessionEnds) {
      if (endsAt > now) continue;
      this.#sessionEnds.set(connection, Number.POSITIVE_INFINITY); // Until that is answered.
      void this.#confirm(connection);
    }
    if (uptime() - this.#renewedAt >= tokens.renewEveryMs) {
      this.#renewedAt = uptime();
      void this.#renew();
    }
  }

  /** Who has a stream open; somebody with several is there several times. */
  get readers(): readonly Reader[] {
    return [...this.#sessionEnds.keys()].map(({ reader }) => reader);
  }

  /**
   * Ends the streams of sessions that are over, before it returns, and their tokens. Never rejects:
   * a token that could not be deleted opens nothing, for its session is looked at.
   */
  async endSessions(sessionIds: readonly string[]): Promise<void> {
    const { registry, tokens, log } = this.#parts;
    this.#endings += 1;
    registry.closeSessions(sessionIds, 'revoked');
    try {
      await tokens.revoke(sessionIds);
    } catch (cause) {
      log.warn({ cause }, 'stream tokens of ended sessions could not be deleted');
    }
  }

  /** Waits until the tokens of ended streams are written back. */
  async close(): Promise<void> {
    await Promise.all(this.#releasing);
  }

  #startOf({ token, lastEventId }: StreamRequest, audiences: readonly string[]): Promise<Start> {
    const { eventLog } = this.#parts;
    // A token that comes back without a Last-Event-ID has seen nothing yet: it starts where it did.
    const kept = lastEventId === undefined ? token?.startPosition : undefined;
    if (kept !== undefined) return eventLog.startFrom(audiences, kept);
    return eventLog.startFor(audiences, lastEventId);
  }

  #open(
    opening: { connectionId: string; reader: Reader; start: Start; session: FoundSession },
    sink: Sink,
  ): void {
    const { registry, userCount, eventLog, limits, metrics, uptime, random, log } = this.#parts;
    const { connectionId, reader, start, session } = opening;
    const refusal = registry.refusalFor(reader);
    if (refusal !== undefined) {
      this.refuse(sink, refusal);
      return;
    }
    const connection = new Connection({
      id: connectionId,
      reader,
      start,
      sink,
      log: eventLog,
      outbox: this.#outbox,
      limits,
      uptime,
      random,
      onEnd: (ended, ending) => this.#ended(ended, ending),
    });
    log.info(
      { streamId: connectionId, userId: reader.userId, sessionId: reader.sessionId, ...start },
      'stream opened',
    );
    metrics.streamOpened(start.reason);
    registry.add(connection); // First hear of what is new, then read what is old.
    userCount.add(connection);
    this.#sessionEnds.set(connection, session.expiresAt);
    connection.open();
    // Between its look-up and the registration it may have been ended, and this stream not with it.
    const isDoubtful =
      session.endings !== this.#endings || uptime() - session.foundAt > openingMsMax;
    if (isDoubtful) void this.#confirm(connection);
  }

  /**
   * When a client that is turned away should try again: spread, or all come back together. Soon when
   * this process stops, for another takes over or the next one starts.
   */
  refusalRetryMs(): number {
    const { registry, random, limits } = this.#parts;
    const leastMs = registry.isDraining ? limits.retryMs : 10_000;
    return Math.round(leastMs * (1 + 2 * random()));
  }

  /** Tells a native EventSource, for which any status but 200 is final, to come back later. */
  refuse(sink: Sink, reason: string): void {
    this.#parts.metrics.streamRefused(reason);
    const { bytes } = controlFrame('stream.close', { code: 'refused', reconnect: true });
    sink.end(Buffer.concat([retryBytes(this.refusalRetryMs()), bytes]));
  }

  /** Ends the stream unless its session still lives. Never rejects. */
  async #confirm(connection: Connection): Promise<void> {
    const { liveSession, clock, log } = this.#parts;
    try {
      const session = await liveSession(connection.reader.sessionId);
      if (!connection.isOpen) return;
      if (session === undefined) return connection.close('expired');
      this.#sessionEnds.set(connection, session.expiresAt);
    } catch (cause) {
      // The database is away: the stream stays open and is looked at again.
      if (connection.isOpen) this.#sessionEnds.set(connection, clock() + 5000);
      log.warn({ cause, streamId: connection.id }, 'session could not be looked up');
    }
  }

  #ended(connection: Connection, { reason, cause }: Ending): void {
    const { registry, userCount, tokens, uptime, log } = this.#parts;
    const { id, reader, openedAt, writtenBytes } = connection;
    registry.remove(connection);
    userCount.remove(connection);
    this.#parts.metrics.streamClosed(reason);
    this.#sessionEnds.delete(connection);
    const fields = { streamId: id, userId: reader.userId, sessionId: reader.sessionId, reason };
    const numbers = { ms: Math.round(uptime() - openedAt), bytes: writtenBytes };
    if (reason === 'failed') log.error({ ...fields, ...numbers, cause }, 'stream closed');
    else log.info({ ...fields, ...numbers }, 'stream closed');
    if (reader.tokenHash === undefined) return;
    const releasing = tokens
      .release(reader.tokenHash, id)
      .catch((error: unknown) => log.warn({ cause: error, streamId: id }, 'token kept its lease'))
      .finally(() => this.#releasing.delete(releasing));
    this.#releasing.add(releasing);
  }

  async #renew(): Promise<void> {
    const { tokens, log } = this.#parts;
    const hashes = [...this.#sessionEnds.keys()].flatMap(({ reader }) => reader.tokenHash ?? []);
    try {
      await tokens.renew(hashes);
    } catch (cause) {
      log.warn({ cause }, 'stream tokens could not be renewed, will try again');
    }
  }
}
