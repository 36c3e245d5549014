import type { StreamStart } from '../event-log/resume-resolver.js';
import { controlFrame, type Frame } from '../events/frame.js';

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

/** The `code` of `stream.close`: why a stream ends, or that it is not opened. */
export type ClosingCode = CloseReason | 'refused';

/** The data from which `stream.open` is encoded. */
export interface StreamOpening {
  readonly start: StreamStart;
  /** Identifies the stream to its client, see `EventStreamParts`. */
  readonly publicId: string;
  readonly userId: string;
  /** Time at which the stream ends, see `EventStreamParts`. */
  readonly endsAt: number;
  readonly heartbeatMs: number;
  readonly retryMs: number;
  readonly topics: readonly TopicPosition[];
  /** Number of topics of which the user is a member. */
  readonly memberships: number;
}

/** A chosen topic, and the position after which the stream receives its events. */
export interface TopicPosition {
  readonly topic: string;
  readonly after: string;
}

/** What `stream.topics` says about a stream. */
export interface TopicsChange {
  /** Topics whose events with higher positions than `id` the stream receives. */
  readonly added: readonly string[];
  /** Topics whose events the stream no longer receives. */
  readonly removed: readonly string[];
  /** The position of the change. */
  readonly id: string;
}

/** Whether `stream.close` with this code asks the client not to reconnect. */
const isFinalCode: Readonly<Record<ClosingCode, boolean>> = {
  client: false,
  stalled: false,
  overflow: false,
  behind: false,
  failed: false,
  draining: false,
  refused: false,
  replaced: true,
  revoked: true,
  expired: true,
};

/**
 * The `retry:` of a final code. It is long, because clients that ignore `stream.close` reconnect anyway, and two
 * such clients with one stream token would replace each other's stream again and again.
 */
const finalRetryMs = 300_000;

/** The longest result of `pickRetryMs`, relative to `retryMs`. */
export const retryFactorMax = 3;

/** The bytes of `stream.heartbeat`. */
export const heartbeatEvent = controlFrame('stream.heartbeat', {}).bytes;

/**
 * Encodes `stream.open`. It has an id, so that a client that reconnects before its first event resumes
 * from the start position of this stream.
 */
export function encodeOpening(opening: StreamOpening): Frame {
  const { start, publicId: stream, userId: user, endsAt, heartbeatMs: heartbeat } = opening;
  const { resumed, reason, id } = start;
  const { topics, memberships } = opening;
  const data = { v: 1, resumed, reason, id, stream, user, endsAt, heartbeat, topics, memberships };
  return controlFrame('stream.open', data, { id, retryMs: opening.retryMs });
}

/**
 * Encodes `stream.topics`. With `isUpToDate` it has an id, so that the client resumes after the change: the client must
 * have got every earlier event.
 */
export function encodeTopics({ added, removed, id }: TopicsChange, isUpToDate: boolean): Frame {
  return controlFrame('stream.topics', { added, removed, id }, isUpToDate ? { id } : {});
}

/**
 * Encodes `stream.close`. Its `retry:` is five minutes for a final code, and otherwise `retryMs`. `renew` asks
 * the client to get a new stream token, and is allowed only for final codes.
 */
export function encodeClosing(code: ClosingCode, retryMs: number, renew = false): Buffer {
  const isFinal = isFinalCode[code];
  const data = { code, reconnect: !isFinal, renew };
  return controlFrame('stream.close', data, { retryMs: isFinal ? finalRetryMs : retryMs }).bytes;
}

/**
 * Returns a random time of 1 to 3 times `retryMs`, so that clients whose streams end together do not
 * reconnect together.
 */
export function pickRetryMs(retryMs: number, random: () => number): number {
  return Math.round(retryMs * (1 + (retryFactorMax - 1) * random()));
}
