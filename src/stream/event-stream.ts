import { Failure } from '../errors.js';
import type { FramePage } from '../event-log/event-log.js';
import type { StreamStart } from '../event-log/resume-resolver.js';
import type { Audience } from '../events/audience.js';
import type { Takeover } from '../events/control-entry.js';
import { controlFrame, type Frame, heartbeatComment } from '../events/frame.js';
import type { Sink } from '../http/reply.js';
import type { TokenClaim } from './token-claim.js';
import type { WriteScheduler } from './write-scheduler.js';

/** The client of a stream. */
export interface Subscriber {
  readonly userId: string;
  readonly sessionId: string;
  readonly audiences: readonly Audience[];
  /** Address as returned by `toIpKey`, for limits. */
  readonly ip: string;
  /** Hash of the stream token; undefined for a stream opened with an access token. */
  readonly tokenHash: string | undefined;
}

export type CloseReason =
  | 'client'
  | 'stalled'
  | 'overflow'
  | 'behind'
  | 'failed'
  | 'draining'
  | 'replaced'
  | 'revoked'
  | 'expired';

export interface StreamEnd {
  readonly reason: CloseReason;
  readonly cause?: unknown;
}

/** The part of `EventLog` that a stream reads. */
export interface ReplaySource {
  readonly head: number;
  read(
    audiences: readonly Audience[],
    after: number,
    bytesMax: number,
    isNeeded: () => boolean,
  ): Promise<FramePage>;
}

export interface EventStreamLimits {
  readonly heartbeatMs: number;
  readonly stallMs: number;
  readonly unsentSoftBytes: number;
  readonly unsentHardBytes: number;
  readonly retryMs: number;
}

export interface EventStreamParts {
  readonly id: string;
  readonly subscriber: Subscriber;
  readonly start: StreamStart;
  /** Identifies the stream to its client, across reconnects if it has a token. */
  readonly publicId: string;
  /** When the stream ends unless its session is refreshed, epoch ms. Sent in `stream.open`. */
  readonly endsAt: number;
  /** Whether heartbeats are events, which pages can notice, instead of comments. */
  readonly hasHeartbeatEvents: boolean;
  /** The stored head before anything was read for the stream. */
  readonly asOf: number;
  /** Undefined for a stream opened with an access token. */
  readonly claim: TokenClaim | undefined;
  readonly sink: Sink;
  readonly eventLog: ReplaySource;
  readonly scheduler: WriteScheduler;
  readonly limits: EventStreamLimits;
  /** Milliseconds, monotonic. Used for heartbeats and stall detection. */
  readonly monotonicClock: () => number;
  readonly random: () => number;
  /** Called once when the stream has ended, for any reason. Must not throw. */
  readonly onEnd: (stream: EventStream, ending: StreamEnd) => void;
}

/** Whether the client should not reconnect after this reason; sent in `stream.close`. */
const isFinalReason: Readonly<Record<CloseReason, boolean>> = {
  client: false,
  stalled: false,
  overflow: false,
  behind: false,
  failed: false,
  draining: false,
  replaced: true,
  revoked: true,
  expired: true,
};

/**
 * `retry:` after a final reason. Long, because clients that ignore `stream.close` reconnect all the same,
 * and two of them with one stream token would replace each other's stream again and again.
 */
const finalRetryMs = 300_000;

const heartbeatEvent = controlFrame('stream.heartbeat', {}).bytes;

/**
 * An open event stream, live or replaying (see docs/glossary.md). It keeps no queue of undelivered
 * events.
 *
 * While live, pending frames are written once per flush cycle. When `unsentSoftBytes` are unsent,
 * the stream starts replaying. It then drops pushed frames and reads the event log page by page, at
 * the pace at which the client accepts bytes, until it has reached the head. A slow client costs
 * about two pages of memory and misses nothing. A client that accepts no byte for `stallMs` is
 * disconnected and resumes with its `Last-Event-ID`. When the event log is unavailable the stream
 * stays open, and replay is retried at the next heartbeat.
 */
export class EventStream {
  readonly id: string;
  readonly subscriber: Subscriber;
  /** Control entries up to this number are included in what was read for the stream. */
  readonly asOf: number;
  /** By `monotonicClock`, like all times of this class. */
  readonly openedAt: number;
  readonly #parts: EventStreamParts;
  readonly #sink: Sink;
  #ending: StreamEnd | undefined;
  #live = false;
  #isReplayPaused = false;
  #isFrozen = false;
  /** Every visible event up to this `seq` has been written or is in `#pending`. */
  #cursor: number;
  /** Frames for the next flush cycle. */
  #pending: Frame[] | undefined;
  #pendingBytes = 0;
  #writtenBytes = 0;
  #writtenAt: number;
  #drainedBytes = 0;
  #drainedAt: number;
  /** Silence after which the next heartbeat is sent. Differs, so that streams do not fall into step. */
  #silenceMs: number;

  constructor(parts: EventStreamParts) {
    this.id = parts.id;
    this.subscriber = parts.subscriber;
    this.asOf = parts.asOf;
    this.#parts = parts;
    this.#sink = parts.sink;
    this.#cursor = parts.start.seq;
    this.openedAt = parts.monotonicClock();
    this.#writtenAt = this.openedAt;
    this.#drainedAt = this.openedAt;
    this.#silenceMs = this.#pickSilenceMs();
  }

  get isOpen(): boolean {
    return this.#ending === undefined;
  }

  /** False while replaying and after the end. */
  get isLive(): boolean {
    return this.#live;
  }

  /** Number of bytes written to the sink. */
  get writtenBytes(): number {
    return this.#writtenBytes;
  }

  /**
   * Sends `retry:` and `stream.open`, claims the stream token and starts to replay missed events. Call
   * it once.
   */
  open(): void {
    this.#sink.onClose(() => this.#end({ reason: 'client' }));
    this.#enqueue(this.#encodeOpening()); // Written with the first page if the page is read before the next flush.
    void this.#replay();
    void this.#parts.claim?.run(this);
  }

  /** Adds the next event for this reader, in sequence order. Never waits, never throws. */
  push(frame: Frame): void {
    if (!this.#live || frame.seq <= this.#cursor) return; // Replay sends it, or the client has it already.
    if (this.#unsentBytes >= this.#parts.limits.unsentSoftBytes) {
      this.#cursor = frame.seq - 1; // The stream was live, so all earlier events were enqueued.
      this.#live = false;
      this.flush(); // Pending frames precede replayed ones.
      void this.#replay();
      return;
    }
    this.#cursor = frame.seq;
    this.#enqueue(frame);
  }

  /**
   * Adds a volatile event. Drops the event and returns false unless the stream is live and less than
   * `unsentSoftBytes` are unsent.
   */
  pushVolatile(frame: Frame): boolean {
    if (!this.#live || this.#unsentBytes >= this.#parts.limits.unsentSoftBytes) return false;
    this.#enqueue(frame);
    return true;
  }

  /** Applies a takeover of the stream token, which ends this stream if it had claimed the token before. */
  applyTakeover(takeover: Takeover): void {
    if (takeover.streamId === this.id) return;
    if (this.#parts.claim?.observe(takeover) === true) this.close('replaced');
  }

  /** See `Sink.roundTrip`. */
  roundTrip(): Promise<void> {
    return this.#sink.roundTrip();
  }

  /** Stops writing anything but the closing frames, for a stream that will be closed soon. */
  freeze(): void {
    this.#isFrozen = true;
    this.#live = false;
  }

  /** Writes the pending frames as one chunk and returns their number. */
  flush(): number {
    const pending = this.#pending;
    if (pending === undefined) return 0;
    this.#clearPending();
    this.#write(this.#parts.scheduler.concat(pending));
    // One frame alone never ends a stream, because its client could not get past it.
    const isOver = this.#sink.queuedBytes > this.#parts.limits.unsentHardBytes;
    if (isOver && pending.length > 1) this.close('overflow');
    return pending.length;
  }

  /**
   * Retries a paused replay, sends a heartbeat when idle and closes a stalled stream. Returns when
   * it must be called next.
   */
  maintain(now: number): number {
    const { heartbeatMs, stallMs } = this.#parts.limits;
    const { queuedBytes } = this.#sink;
    if (this.#isFrozen) return now + heartbeatMs;
    if (this.#isReplayPaused) {
      this.#isReplayPaused = false;
      void this.#replay();
    }
    const drainedBytes = this.#writtenBytes - queuedBytes;
    if (drainedBytes > this.#drainedBytes || queuedBytes === 0) {
      this.#drainedBytes = drainedBytes;
      this.#drainedAt = now;
    }
    if (queuedBytes === 0) {
      if (now - this.#writtenAt >= this.#silenceMs) {
        this.#write(this.#heartbeat);
        this.#silenceMs = this.#pickSilenceMs();
      }
      return this.#writtenAt + this.#silenceMs;
    }
    if (now - this.#drainedAt >= stallMs) this.close('stalled');
    return Math.min(now + heartbeatMs, this.#drainedAt + stallMs);
  }

  /**
   * Ends the stream; later calls do nothing. For `stalled` and `overflow` the HTTP stream is
   * reset. For other reasons pending frames and `stream.close` are sent first. Its `retry:` is five
   * minutes after a final reason, and otherwise `retryMs` (by default jittered).
   */
  close(reason: CloseReason, details: { cause?: unknown; retryMs?: number } = {}): void {
    if (!this.isOpen) return;
    if (reason === 'stalled' || reason === 'overflow') {
      this.#end({ reason });
      this.#sink.destroy();
      return;
    }
    this.flush();
    const isFinal = isFinalReason[reason];
    const retryMs = isFinal ? finalRetryMs : (details.retryMs ?? this.#jitteredRetryMs());
    const closing = { code: reason, reconnect: !isFinal, renew: false };
    const { bytes } = controlFrame('stream.close', closing, { retryMs });
    this.#end({ reason, ...('cause' in details ? { cause: details.cause } : {}) });
    this.#sink.end(bytes);
  }

  /** Has an id, so that a client that receives nothing else resumes from the start, too. */
  #encodeOpening(): Frame {
    const { start, publicId, endsAt, limits } = this.#parts;
    const { resumed, reason, id } = start;
    const opening = {
      ...{ v: 1, resumed, reason, id, stream: publicId, user: this.subscriber.userId },
      ...{ endsAt, heartbeat: limits.heartbeatMs },
    };
    return controlFrame('stream.open', opening, { id, retryMs: this.#jitteredRetryMs() });
  }

  get #heartbeat(): Buffer {
    return this.#parts.hasHeartbeatEvents ? heartbeatEvent : heartbeatComment;
  }

  get #unsentBytes(): number {
    return this.#sink.queuedBytes + this.#pendingBytes;
  }

  #enqueue(frame: Frame): void {
    this.#pendingBytes += frame.bytes.length;
    if (this.#pending !== undefined) {
      this.#pending.push(frame);
      return;
    }
    this.#pending = [frame];
    this.#parts.scheduler.add(this);
  }

  /** Replays the event log at the client's pace until the stream is live. Never rejects. */
  async #replay(): Promise<void> {
    const { eventLog, scheduler, limits } = this.#parts;
    const { audiences } = this.subscriber;
    try {
      while (this.isOpen && !this.#live) {
        await this.#sink.drained(); // Also settles when the sink closes.
        if (!this.isOpen || this.#sink.closed) return; // The sink may call `onClose` later.
        const isNeeded = () => this.isOpen;
        const page = await eventLog.read(audiences, this.#cursor, limits.unsentSoftBytes, isNeeded);
        if (!this.isOpen || this.#isFrozen) return;
        if (page.gap) return this.close('behind'); // The next `stream.open` reports the loss, if any.
        const frames = [...(this.#pending ?? []), ...page.frames];
        this.#clearPending();
        if (frames.length > 0) this.#write(scheduler.concat(frames));
        this.#cursor = page.end;
        // `push` dropped events that were delivered during the read, so another page may be needed.
        this.#live = !page.more && eventLog.head <= this.#cursor;
      }
    } catch (cause) {
      // The event log is unavailable. `maintain` retries.
      if (cause instanceof Failure && cause.name === 'service_unavailable')
        this.#isReplayPaused = true;
      else this.close('failed', { cause });
    }
  }

  #write(bytes: Buffer): void {
    if (!this.isOpen) return;
    this.#writtenBytes += bytes.length;
    this.#writtenAt = this.#parts.monotonicClock();
    this.#sink.write(bytes);
  }

  #end(ending: StreamEnd): void {
    if (!this.isOpen) return;
    this.#ending = ending;
    this.#live = false;
    this.#clearPending();
    this.#parts.claim?.end(this.id);
    this.#parts.onEnd(this, ending);
  }

  #clearPending(): void {
    this.#pending = undefined;
    this.#pendingBytes = 0;
  }

  /** Returns 80 to 100 % of `heartbeatMs`, random. */
  #pickSilenceMs(): number {
    const { limits, random } = this.#parts;
    return limits.heartbeatMs * (1 - 0.2 * random());
  }

  /**
   * Returns 1 to 3 times `retryMs`, random for each stream, so that clients whose streams end together
   * do not reconnect together.
   */
  #jitteredRetryMs(): number {
    const { limits, random } = this.#parts;
    return Math.round(limits.retryMs * (1 + 2 * random()));
  }
}
