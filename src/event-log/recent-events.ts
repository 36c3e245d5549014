import { type Audience, getTopic } from '../events/audience.js';
import type { Frame } from '../events/frame.js';
import { findTopics, type Reader, type TopicsBySeq } from '../events/topic.js';
import { isExpired } from './logged-event.js';

interface EventMeta {
  readonly audiences: readonly Audience[];
  readonly expiresAt: number | undefined;
}

interface CachedEvent extends EventMeta {
  readonly frame: Frame;
  /** Those of the audiences that are topics. */
  readonly topics: readonly Audience[];
}

/** The next frames that are visible to a reader, and whether more follow. */
export interface RecentPage {
  readonly frames: readonly Frame[];
  readonly hasMore: boolean;
  /** See `TopicsBySeq`; undefined if there are no such events. */
  readonly topicsBySeq: TopicsBySeq | undefined;
}

/** Parameters of one read. */
export interface ReadRequest {
  readonly reader: Reader;
  readonly after: number;
  /** The page ends with the frame that reaches this size. */
  readonly bytesMax: number;
  /** The time in epoch ms. Events that have expired by then are skipped. */
  readonly now: number;
}

const noBytes = Buffer.alloc(0);
const noAudiences: readonly Audience[] = [];
const cachedBytesMax = 8 * 1024 * 1024;

/** Estimated memory of an event in addition to its frame, and of one recipient in addition to its id. */
const eventOverheadBytes = 256;
const recipientOverheadBytes = 56;

/**
 * Caches the newest events of the event log as encoded frames, so that most streams that resume or fall behind
 * need no query. Keeps about 8 MiB including recipients, which is about 17,000 small events. The limit
 * also bounds the cost of a read, which scans at most 90,000 recipients.
 */
export class RecentEvents {
  /** Entries in sequence order, without gaps from `#firstIndex` on. Entries before that index are evicted. */
  #cached: (CachedEvent | undefined)[] = [];
  #firstIndex = 0;
  #bytes = 0;
  /** Every entry after this sequence number is cached. */
  #startsAfter: number;

  constructor(after: number) {
    this.#startsAfter = after;
  }

  /** Adds the next event of the event log and evicts the oldest entries over the limit. */
  add(frame: Frame, { audiences, expiresAt }: EventMeta): void {
    const hasTopic = audiences.some((audience) => getTopic(audience) !== undefined);
    const topics = hasTopic
      ? audiences.filter((each) => getTopic(each) !== undefined)
      : noAudiences;
    this.#cached.push({ frame, audiences, topics, expiresAt });
    this.#bytes += getSize({ frame, audiences });
    while (this.#bytes > cachedBytesMax) this.#dropOldest();
    // Copying only when half the array is evicted keeps `add` cheap on average.
    if (this.#firstIndex > 64 && this.#firstIndex * 2 > this.#cached.length) {
      this.#cached = this.#cached.slice(this.#firstIndex);
      this.#firstIndex = 0;
    }
  }

  /** Adds the next entry of the event log if no reader receives it: a control entry or an expired event. */
  addInvisible(seq: number): void {
    this.add({ seq, bytes: noBytes }, { audiences: noAudiences, expiresAt: undefined });
  }

  /** Returns the next frames for a reader, or undefined when some may have been evicted. */
  read({ reader, after, bytesMax, now }: ReadRequest): RecentPage | undefined {
    if (after < this.#startsAfter) return undefined;
    const { audiences, topics } = reader;
    const frames: Frame[] = [];
    let topicsBySeq: Map<number, readonly Audience[]> | undefined;
    let bytes = 0;
    for (let index = this.#indexAfter(after); index < this.#cached.length; index += 1) {
      const cached = this.#cached[index];
      if (cached === undefined || isExpired(cached, now)) continue;
      const { frame } = cached;
      let found = noAudiences;
      if (!haveCommonAudience(cached.audiences, audiences)) {
        if (topics.size > 0) found = findTopics(cached.topics, topics, frame.seq);
        if (found.length === 0) continue;
      }
      if (bytes >= bytesMax) return { frames, hasMore: true, topicsBySeq };
      frames.push(frame);
      bytes += frame.bytes.length;
      if (found.length > 0) {
        topicsBySeq ??= new Map();
        topicsBySeq.set(frame.seq, found);
      }
    }
    return { frames, hasMore: false, topicsBySeq };
  }

  #dropOldest(): void {
    const oldest = this.#cached[this.#firstIndex];
    if (oldest === undefined) return;
    this.#startsAfter = oldest.frame.seq;
    this.#bytes -= getSize(oldest);
    this.#cached[this.#firstIndex] = undefined;
    this.#firstIndex += 1;
  }

  #indexAfter(seq: number): number {
    const oldest = this.#cached[this.#firstIndex];
    // Sequence numbers have no gaps, so the index follows from the sequence number.
    return oldest === undefined
      ? this.#cached.length
      : this.#firstIndex + (seq - oldest.frame.seq) + 1;
  }
}

function getSize({ frame, audiences }: Pick<CachedEvent, 'frame' | 'audiences'>): number {
  let bytes = frame.bytes.length + eventOverheadBytes;
  for (const { length } of audiences) bytes += recipientOverheadBytes + Math.max(40, length);
  return bytes;
}

/** Searches the longer list with the fast `includes`: a reader has 3 audiences besides its topics, an event up to 1000. */
function haveCommonAudience(a: readonly Audience[], b: readonly Audience[]): boolean {
  if (a.length > 32) return b.some((audience) => a.includes(audience));
  return a.some((audience) => b.includes(audience));
}
