import { Failure } from '../errors.js';
import type { FramePage } from '../event-log/event-log.js';
import type { StreamStart } from '../event-log/resume-resolver.js';
import type { Audience } from '../events/audience.js';
import type { Takeover } from '../events/control-entry.js';
import { type Frame, heartbeatComment } from '../events/frame.js';
import type { Reader } from '../events/topic.js';
import type { Sink } from '../http/reply.js';
import {
  type CloseReason,
  encodeClosing,
  encodeOpening,
  encodeTopics,
  heartbeatEvent,
  pickRetryMs,
  retryFactorMax,
  type TopicsChange,
} from './control-events.js';
import type { TokenClaim } from './tokens/token-claim.js';
import { compareTopics, noStoredRows, type RowChange, TopicRows } from './topics/topic-rows.js';
import type { WriteScheduler } from './write-scheduler.js';

/** The client of a stream, and the events that it receives. */
export interface Subscriber {
  readonly userId: string;
  readonly sessionId: string;
  /** Without topics. */
  readonly audiences: readonly Audience[];
  /** The client's address as returned by `toIpKey`, for limits. */
  readonly ipKey: string;
  /** Hash of the stream token; undefined for a stream opened with an access token. */
  readonly tokenHash: string | undefined;
}

/** The client that opened a stream, as shown to operators. */
export interface StreamClient {
  /** IP address. */
  readonly address: string;
  /** At most 255 printable ASCII characters. */
  readonly userAgent: string | undefined;
}

export interface StreamEnd {
  readonly reason: CloseReason;
  readonly cause?: unknown;
}

export interface CloseDetails {
  readonly cause?: unknown;
  /** The `retry:` of `stream.close`, unless the reason is final. */
  readonly retryMs?: number;
  /** Whether the client is asked to get a new stream token. Only for a final reason. */
  readonly renew?: boolean;
}

/** The members of `EventLog` that a stream uses to replay events. */
export interface ReplaySource {
  readonly head: number;
  format(seq: number): string;
  read(
    reader: Reader,
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
  readonly client: StreamClient;
  /** Epoch ms. */
  readonly openedAt: number;
  readonly start: StreamStart;
  /** The topics that were read for the stream. Default: none. */
  readonly topics?: TopicRows;
  /** Identifies the stream to its client. With a token, the id stays the same across reconnects. */
  readonly publicId: string;
  /** Time at which the stream ends unless its session is refreshed or its token is extended, epoch ms. */
  readonly endsAt: number;
  /** Whether heartbeats are events, which JavaScript can observe, instead of comments. */
  readonly hasHeartbeatEvents: boolean;
  /** The stored head of the event log before anything else was read for the stream. */
  readonly headAtOpen: number;
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

/** What a held stream has yet to tell its client. */
interface Hold {
  /** The topics that the client knows. */
  readonly topics: Reader['topics'];
  /** Number of the newest control entry that has changed the topics since. */
  changedAt: number | undefined;
}

/**
 * An open event stream, live or replaying (see docs/glossary.md). The stream does not queue events that it
 * cannot write yet, but reads them from the event log later.
 *
 * While live, pending frames are written once per flush cycle. When `unsentSoftBytes` are unsent,
 * the stream starts replaying: it drops pushed frames and reads the event log page by page, at the
 * pace at which the client accepts bytes, until it has reached the head. A slow client costs about
 * two pages of memory and misses nothing. A client that accepts no byte for `stallMs` is
 * disconnected and resumes with its `Last-Event-ID`. When the event log is unavailable the stream
 * stays open, and replay is retried at the next heartbeat.
 */
export class EventStream {
  readonly id: string;
  readonly subscriber: Subscriber;
  /** Changed by `TopicIndex`, which then calls `applyTopics`. */
  readonly topics: TopicRows;
  /** The stored head when the stream was opened. Control entries up to this number do not affect the stream. */
  readonly headAtOpen: number;
  /** Time at which the stream ends, see `EventStreamParts`. Changes when the token is extended. */
  endsAt: number;
  /** Time at which the stream was opened, by `monotonicClock`, as all times here except `openedAt` and `endsAt`. */
  readonly startedAt: number;
  readonly #parts: EventStreamParts;
  readonly #sink: Sink;
  #ending: StreamEnd | undefined;
  /** Whether `stream.open` was written. */
  #isOpened = false;
  #isLive = false;
  #isReplayPaused = false;
  #isFrozen = false;
  /** Defined while everything waits until the stream has claimed its token. */
  #hold: Hold | undefined;
  #isReplaying = false;
  /** Every visible event up to this `seq` has been written or is in `#pending`. */
  #cursor: number;
  /** Frames for the next flush cycle. */
  #pending: Frame[] | undefined;
  #pendingBytes = 0;
  #writtenBytes = 0;
  #writtenAt: number;
  /** Number of bytes that the client had accepted when it last made progress. */
  #drainedBytes = 0;
  /** Time of the client's last progress, or of the write of the oldest unsent byte, whichever is later. */
  #progressAt: number;
  /**
   * Time without a write after which the next heartbeat is sent. Random, so that heartbeats of different
   * streams spread out.
   */
  #silenceMs: number;

  constructor(parts: EventStreamParts) {
    this.id = parts.id;
    this.subscriber = parts.subscriber;
    this.topics = parts.topics ?? new TopicRows(parts.subscriber.audiences, noStoredRows);
    this.headAtOpen = parts.headAtOpen;
    this.endsAt = parts.endsAt;
    this.#parts = parts;
    this.#sink = parts.sink;
    this.#cursor = parts.start.seq;
    this.startedAt = parts.monotonicClock();
    this.#writtenAt = this.startedAt;
    this.#progressAt = this.startedAt;
    this.#silenceMs = this.#pickSilenceMs();
  }

  /** Identifies the stream to its client, see `EventStreamParts`. */
  get publicId(): string {
    return this.#parts.publicId;
  }

  get isOpen(): boolean {
    return this.#ending === undefined;
  }

  /** Whether new events are written at once. False while replaying and after the end. */
  get isLive(): boolean {
    return this.#isLive;
  }

  get client(): StreamClient {
    return this.#parts.client;
  }

  /** Time at which the stream was opened, epoch ms. */
  get openedAt(): number {
    return this.#parts.openedAt;
  }

  /** Number of entries of the event log that the stream has yet to read; 0 while it is live. */
  get eventsBehind(): number {
    return this.#isLive ? 0 : Math.max(0, this.#parts.eventLog.head - this.#cursor);
  }

  /** Number of bytes that the client has not accepted yet. */
  get unsentBytes(): number {
    return this.#sink.queuedBytes + this.#pendingBytes;
  }

  /** Number of bytes written to the sink. */
  get writtenBytes(): number {
    return this.#writtenBytes;
  }

  /**
   * Sends `retry:` and `stream.open`, and starts to replay missed events and to claim the stream token.
   * Call it once.
   */
  open(): void {
    this.#sink.onClose(() => this.#end({ reason: 'client' }));
    const { start, publicId, limits, eventLog } = this.#parts;
    const { endsAt } = this;
    const { heartbeatMs } = limits;
    const retryMs = this.#pickRetryMs();
    const { userId } = this.subscriber;
    const { choices, membershipCount: memberships } = this.topics;
    const topics = choices.map(({ topic, since }) => ({ topic, after: eventLog.format(since) }));
    const opening = encodeOpening({
      ...{ start, publicId, userId, endsAt, heartbeatMs, retryMs, topics, memberships },
    });
    this.#isOpened = true;
    this.#enqueue(opening); // Written with the first page if that is read before the next flush.
    void this.#replay();
    void this.#parts.claim?.run(this); // May hold the stream before the first page is read.
  }

  /** Adds the next event for this subscriber, in sequence order. Never waits, never throws. */
  push(frame: Frame): void {
    if (!this.#isLive || frame.seq <= this.#cursor) return; // Replay will send the event, or has sent it.
    if (this.unsentBytes >= this.#parts.limits.unsentSoftBytes) {
      this.#cursor = frame.seq - 1; // The stream was live, so all earlier events have been written or are pending.
      this.#isLive = false;
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
    if (!this.#isLive || this.unsentBytes >= this.#parts.limits.unsentSoftBytes) return false;
    this.#enqueue(frame);
    return true;
  }

  /** Applies a takeover of the stream token. Closes this stream if it claimed the token before that. */
  applyTakeover(takeover: Takeover): void {
    if (takeover.streamId === this.id) return;
    const { claim } = this.#parts;
    claim?.recordTakeover(takeover);
    if (claim?.isReplaced === true) this.close('replaced');
  }

  /**
   * Notifies the client of the control entry `seq`, which has changed `topics`. A live stream has sent all events before
   * it, so its client can resume after it. Otherwise the stream ends as `behind` if it may not have read every event
   * of a topic that the backend removed: the next `stream.open` says that events are missing. A held stream notifies
   * its client when it is released.
   */
  applyTopics({ added, removed, isChanged, isRemoval }: RowChange, seq: number): void {
    if (!this.isOpen || this.#isFrozen) return;
    const isUpToDate = this.#isLive;
    if (isChanged && isRemoval && !isUpToDate) this.close('behind');
    // Before `stream.open`, which will list the topics, nothing is written.
    if (!this.isOpen || !this.#isOpened) return;
    if (!isChanged && !(isRemoval && isUpToDate)) return;
    if (this.#hold !== undefined) {
      this.#hold.changedAt = seq;
      return;
    }
    if (isUpToDate) this.#cursor = Math.max(this.#cursor, seq);
    this.#sendTopics({ added, removed, id: this.#parts.eventLog.format(seq) }, isUpToDate);
  }

  /** Waits for a round trip to the client, see `Sink.roundTrip`. */
  roundTrip(): Promise<void> {
    return this.#sink.roundTrip();
  }

  /**
   * Sends no events and no `stream.topics` until `release`, because another stream holds the token. Otherwise
   * somebody with a stolen URL could read them without a takeover, by acknowledging nothing and so delaying the claim.
   */
  hold(): void {
    this.#hold ??= { topics: this.topics.reader.topics, changedAt: undefined };
    this.#isLive = false;
    this.flush(); // `stream.open` precedes the PING of the claim.
  }

  /** Ends `hold`, and sends all changes of topics since as one. */
  release(): void {
    const hold = this.#hold;
    this.#hold = undefined;
    if (hold?.changedAt !== undefined && this.isOpen && !this.#isFrozen) {
      const id = this.#parts.eventLog.format(hold.changedAt);
      this.#sendTopics({ ...compareTopics(hold.topics, this.topics.reader.topics), id }, false);
    }
    void this.#replay();
  }

  /** Stops all writes except the closing frames. For a stream that will be closed soon. */
  freeze(): void {
    this.#isFrozen = true;
    this.#isLive = false;
  }

  /** Writes the pending frames as one chunk and returns their number. */
  flush(): number {
    const pending = this.#pending;
    if (pending === undefined) return 0;
    this.#clearPending();
    this.#write(this.#parts.scheduler.concat(pending));
    // One frame alone never ends a stream, because after each reconnect it would be sent again.
    const isOverLimit = this.#sink.queuedBytes > this.#parts.limits.unsentHardBytes;
    if (isOverLimit && pending.length > 1) this.close('overflow');
    return pending.length;
  }

  /**
   * Resumes a paused replay, sends a heartbeat when due, and closes the stream if it has stalled. Returns
   * the time at which the next call is due.
   */
  maintain(now: number): number {
    const { limits, monotonicClock } = this.#parts;
    const { heartbeatMs, stallMs } = limits;
    const { queuedBytes } = this.#sink;
    if (this.#isFrozen) return now + heartbeatMs;
    if (this.#isReplayPaused) {
      this.#isReplayPaused = false;
      void this.#replay();
    }
    if (queuedBytes === 0) {
      if (now - this.#writtenAt >= this.#silenceMs) {
        this.#write(this.#heartbeat);
        this.#silenceMs = this.#pickSilenceMs();
      }
      return this.#writtenAt + this.#silenceMs;
    }
    const drainedBytes = this.#writtenBytes - queuedBytes;
    if (drainedBytes > this.#drainedBytes) {
      this.#drainedBytes = drainedBytes;
      this.#progressAt = monotonicClock();
    }
    // Not compared with `now`, which may be ahead: a client never has less time than `stallMs`.
    if (monotonicClock() - this.#progressAt >= stallMs) this.close('stalled');
    return Math.min(now + heartbeatMs, this.#progressAt + stallMs);
  }

  /**
   * Ends the stream; later calls do nothing. For `stalled` and `overflow` the HTTP stream is
   * reset. For other reasons pending frames and `stream.close` are sent first. The `retry:` of
   * `stream.close` is five minutes for a final reason, and otherwise `details.retryMs`, by default 1 to 3
   * times the configured `retryMs`.
   */
  close(reason: CloseReason, details: CloseDetails = {}): void {
    if (!this.isOpen) return;
    if (reason === 'stalled' || reason === 'overflow') {
      this.#end({ reason });
      this.#sink.destroy();
      return;
    }
    this.flush();
    const { retryMs = this.#pickRetryMs() } = details;
    this.#end({ reason, ...('cause' in details ? { cause: details.cause } : {}) }, retryMs);
    this.#sink.end(encodeClosing(reason, retryMs, details.renew));
  }

  get #heartbeat(): Buffer {
    return this.#parts.hasHeartbeatEvents ? heartbeatEvent : heartbeatComment;
  }

  /** Sends `stream.topics`. Closes the stream as `overflow` if more than `unsentHardBytes` are unsent. */
  #sendTopics(change: TopicsChange, isUpToDate: boolean): void {
    // The frame is not in the event log, so it cannot be read later. The client returns to the stored topics.
    if (this.unsentBytes > this.#parts.limits.unsentHardBytes) this.close('overflow');
    else this.#enqueue(encodeTopics(change, isUpToDate));
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

  /** Replays the event log at the client's pace until the stream is live or held. Never rejects. */
  async #replay(): Promise<void> {
    if (this.#isReplaying) return;
    this.#isReplaying = true;
    await this.#readPages();
    this.#isReplaying = false;
    // The stream may have been released, or have stopped being live, since the last page was read.
    if (this.#needsReplay && !this.#isReplayPaused) void this.#replay();
  }

  /** Whether the stream must read events from the event log now. */
  get #needsReplay(): boolean {
    const canWrite = this.isOpen && !this.#sink.closed; // `onClose` may not have been called yet.
    return canWrite && !this.#isLive && this.#hold === undefined && !this.#isFrozen;
  }

  async #readPages(): Promise<void> {
    const { eventLog, scheduler, limits } = this.#parts;
    try {
      while (this.#needsReplay) {
        await this.#sink.drained(); // Also settles when the sink closes.
        if (!this.#needsReplay) return;
        const isNeeded = () => this.isOpen;
        const { reader } = this.topics;
        const page = await eventLog.read(reader, this.#cursor, limits.unsentSoftBytes, isNeeded);
        if (!this.#needsReplay) return;
        if (page.hasGap) return this.close('behind'); // The next `stream.open` reports the loss, if any.
        const frames = [...(this.#pending ?? []), ...this.#selectVisible(page)];
        this.#clearPending();
        if (frames.length > 0) this.#write(scheduler.concat(frames));
        this.#cursor = page.endSeq;
        // `push` has dropped the events delivered during the read. If the page lacks them, another page is read.
        this.#isLive = !page.hasMore && eventLog.head <= this.#cursor;
      }
    } catch (cause) {
      // `maintain` resumes the replay.
      if (cause instanceof Failure && cause.name === 'service_unavailable')
        this.#isReplayPaused = true;
      else this.close('failed', { cause });
    }
  }

  /** Returns the frames of a page without those whose topics were given up while it was read. */
  #selectVisible({ frames, topicsBySeq }: FramePage): readonly Frame[] {
    if (topicsBySeq === undefined) return frames;
    return frames.filter(({ seq }) => {
      const audiences = topicsBySeq.get(seq);
      return audiences === undefined || audiences.some((one) => this.topics.covers(one, seq));
    });
  }

  #write(bytes: Buffer): void {
    if (!this.isOpen) return;
    this.#writtenAt = this.#parts.monotonicClock();
    if (this.#sink.queuedBytes === 0) {
      this.#drainedBytes = this.#writtenBytes;
      this.#progressAt = this.#writtenAt;
    }
    this.#writtenBytes += bytes.length;
    this.#sink.write(bytes);
  }

  /** Ends the stream once. `retryMs` is the last `retry:` that was sent, by default the longest of `stream.open`. */
  #end(ending: StreamEnd, retryMs = this.#parts.limits.retryMs * retryFactorMax): void {
    if (!this.isOpen) return;
    this.#ending = ending;
    this.#isLive = false;
    this.#clearPending();
    this.#parts.claim?.end(this.id, retryMs);
    this.#parts.onEnd(this, ending);
  }

  #clearPending(): void {
    this.#pending = undefined;
    this.#pendingBytes = 0;
  }

  #pickRetryMs(): number {
    return pickRetryMs(this.#parts.limits.retryMs, this.#parts.random);
  }

  /** Returns a random time of 80 to 100 % of `heartbeatMs`. */
  #pickSilenceMs(): number {
    const { limits, random } = this.#parts;
    return limits.heartbeatMs * (1 - 0.2 * random());
  }
}
