import { Failure } from '../errors.js';
import type { FramePage } from '../event-log/event-log.js';
import type { StreamStart } from '../event-log/resume-resolver.js';
import type { Audience } from '../events/audience.js';
import { controlFrame, type Frame, heartbeat, retryBytes } from '../events/frame.js';
import type { Sink } from '../http/reply.js';
import type { WriteScheduler } from './write-scheduler.js';

/** Who listens. */
export interface Subscriber {
  readonly userId: string;
  readonly sessionId: string;
  readonly audiences: readonly Audience[];
  /** `ipKeyOf` the address: limits are for places. */
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

/** The part of the log that a connection reads. */
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
  readonly sink: Sink;
  readonly eventLog: ReplaySource;
  readonly scheduler: WriteScheduler;
  readonly limits: EventStreamLimits;
  /** Never goes back, and does not jump: silence and progress are measured by it. */
  readonly monotonicClock: () => number;
  readonly random: () => number;
  /** Called once, when the stream is over for whatever reason. Must not throw. */
  readonly onEnd: (stream: EventStream, ending: StreamEnd) => void;
}

/** Reasons after which coming back makes no sense: the client is told so in `stream.close`. */
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
 * One open event stream, live or replaying. It has no queue of its own.
 *
 * Live, frames are gathered and written once a tick. When `unsentSoftBytes` are on their way the
 * connection turns to replaying: frames pushed meanwhile are let go, for they are in the log, and
 * the log is read page by page as the client drains, until the cursor has reached all that was
 * delivered. A slow client costs about two pages and misses nothing; one that takes no byte for
 * `stallMs` is cut off, and comes back with its `Last-Event-ID`. A log that does not answer ends no
 * stream: it is asked again with the next heartbeat.
 */
export class EventStream {
  readonly id: string;
  readonly subscriber: Subscriber;
  /** As `uptime` counts, like all times here. */
  readonly openedAt: number;
  readonly #parts: EventStreamParts;
  readonly #sink: Sink;
  #ending: StreamEnd | undefined;
  #live = false;
  #isReplayPaused = false;
  /** Everything this reader may see up to here has been written, or waits in `#pending`. */
  #cursor: number;
  /** What waits to be written in the outbox's next round. */
  #pending: Frame[] | undefined;
  #pendingBytes = 0;
  #writtenBytes = 0;
  #writtenAt: number;
  #drainedBytes = 0;
  #progressAt: number;

  constructor(parts: EventStreamParts) {
    this.id = parts.id;
    this.subscriber = parts.subscriber;
    this.#parts = parts;
    this.#sink = parts.sink;
    this.#cursor = parts.start.seq;
    this.openedAt = parts.monotonicClock();
    this.#writtenAt = this.openedAt;
    this.#progressAt = this.openedAt;
  }

  get isOpen(): boolean {
    return this.#ending === undefined;
  }

  get isLive(): boolean {
    return this.#live;
  }

  get writtenBytes(): number {
    return this.#writtenBytes;
  }

  /** Begins with what every stream begins with, then reads what the client has missed. */
  open(): void {
    this.#sink.onClose(() => this.#end({ reason: 'client' }));
    const { resumed, reason, id } = this.#parts.start;
    const openFrame = controlFrame('stream.open', { resumed, reason, id });
    const bytes = Buffer.concat([retryBytes(this.#jitteredRetryMs()), openFrame.bytes]);
    this.#enqueue({ seq: 0, bytes }); // With the first page, when that comes before the tick ends.
    void this.#replay();
  }

  /** Takes the next event for this reader, in log order. Never waits, never throws. */
  push(frame: Frame): void {
    if (!this.#live || frame.seq <= this.#cursor) return; // The log has it, or had it already.
    if (this.#unsentBytes >= this.#parts.limits.unsentSoftBytes) {
      this.#cursor = frame.seq - 1; // Live until now, so all before this one is on its way.
      this.#live = false;
      this.flush(); // What the log gives next comes after what is pending.
      void this.#replay();
      return;
    }
    this.#cursor = frame.seq;
    this.#enqueue(frame);
  }

  /** Takes an event that is not in the log: only when live and not behind. False: it was let go. */
  pushVolatile(frame: Frame): boolean {
    if (!this.#live || this.#unsentBytes >= this.#parts.limits.unsentSoftBytes) return false;
    this.#enqueue(frame);
    return true;
  }

  /** Writes what has gathered as one chunk, and answers how many frames that were. */
  flush(): number {
    const pending = this.#pending;
    if (pending === undefined) return 0;
    this.#clearPending();
    this.#write(this.#parts.scheduler.concat(pending));
    return pending.length;
  }

  /**
   * Looks after the connection: a comment after silence, the end of one that makes no progress.
   * Answers when it wants to be looked at again.
   */
  maintain(now: number): number {
    const { heartbeatMs, stallMs } = this.#parts.limits;
    const { queuedBytes } = this.#sink;
    if (this.#isReplayPaused) {
      this.#isReplayPaused = false;
      void this.#replay();
    }
    const drainedBytes = this.#writtenBytes - queuedBytes;
    if (drainedBytes > this.#drainedBytes || queuedBytes === 0) {
      this.#drainedBytes = drainedBytes;
      this.#progressAt = now;
    }
    if (queuedBytes === 0) {
      if (now - this.#writtenAt >= heartbeatMs) this.#write(heartbeat);
      return this.#writtenAt + heartbeatMs;
    }
    if (now - this.#progressAt >= stallMs) this.close('stalled');
    return Math.min(now + heartbeatMs, this.#progressAt + stallMs);
  }

  /** Ends the stream; only the first reason counts. `retryMs` is when the client should be back. */
  close(reason: CloseReason, details: { cause?: unknown; retryMs?: number } = {}): void {
    if (!this.isOpen) return;
    if (reason === 'stalled' || reason === 'overflow') {
      this.#end({ reason });
      this.#sink.destroy();
      return;
    }
    this.flush();
    const closeFrame = controlFrame('stream.close', {
      code: reason,
      reconnect: !isFinalReason[reason],
    });
    const retry = retryBytes(details.retryMs ?? this.#jitteredRetryMs());
    this.#end({ reason, ...('cause' in details ? { cause: details.cause } : {}) });
    this.#sink.end(Buffer.concat([retry, closeFrame.bytes]));
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

  /** Reads on from the log, at the client's pace, until it has caught up. Never rejects. */
  async #replay(): Promise<void> {
    const { eventLog, scheduler, limits } = this.#parts;
    const { audiences } = this.subscriber;
    try {
      while (this.isOpen && !this.#live) {
        await this.#sink.drained(); // Settles also when the sink closes.
        if (!this.isOpen || this.#sink.closed) return; // Its end may be told after this.
        const isWanted = () => this.isOpen;
        const page = await eventLog.read(audiences, this.#cursor, limits.unsentSoftBytes, isWanted);
        if (!this.isOpen) return;
        if (page.gap) return this.close('behind'); // On return, `stream.open` tells what is lost.
        const frames = [...(this.#pending ?? []), ...page.frames];
        this.#clearPending();
        if (frames.length > 0) this.#write(scheduler.concat(frames));
        this.#cursor = page.end;
        // Delivered while the page was being read? Then it is in the log by now: go round again.
        this.#live = !page.more && eventLog.head <= this.#cursor;
      }
    } catch (cause) {
      // The log is away for now: it is asked again when the connection is looked after next.
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
    if (this.#sink.queuedBytes > this.#parts.limits.unsentHardBytes) this.close('overflow');
  }

  #end(ending: StreamEnd): void {
    if (!this.isOpen) return;
    this.#ending = ending;
    this.#live = false;
    this.#clearPending();
    this.#parts.onEnd(this, ending);
  }

  #clearPending(): void {
    this.#pending = undefined;
    this.#pendingBytes = 0;
  }

  /** Every connection has its own, so that those that fall together do not return together. */
  #jitteredRetryMs(): number {
    const { limits, random } = this.#parts;
    return Math.round(limits.retryMs * (1 + 2 * random()));
  }
}
