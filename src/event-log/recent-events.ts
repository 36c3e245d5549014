import type { Audience } from '../events/audience.js';
import type { Frame } from '../events/frame.js';

interface EventMeta {
  readonly audiences: readonly Audience[];
  readonly expiresAt: number | undefined;
}

interface CachedEvent extends EventMeta {
  readonly frame: Frame;
}

/** What a reader may see of the events after a position, and whether that is all. */
export interface RecentPage {
  readonly frames: readonly Frame[];
  readonly more: boolean;
}

/** Who reads from where. */
export interface ReadRequest {
  readonly audiences: readonly Audience[];
  readonly after: number;
  /** The frame that goes beyond is the last. */
  readonly bytesMax: number;
  readonly now: number;
}

const cachedBytesMax = 8 * 1024 * 1024;

/** About what an event needs beside its bytes, and what one of its addresses needs, if it is long. */
const eventOverheadBytes = 256;
const recipientOverheadBytes = 96;

/**
 * The newest events of the log, already encoded, so that most who come back, and most who fall
 * behind, cost no query. About 8 MiB with their addresses, 17,000 small events; what falls out is
 * read from the log again. That bounds a read, too: it looks at 90,000 addresses at most.
 */
export class RecentEvents {
  /** In log order and without a gap, from `#first` on; what lies before it has fallen out. */
  #cached: (CachedEvent | undefined)[] = [];
  #firstIndex = 0;
  #bytes = 0;
  /** Everything after this position, up to the newest, is kept. */
  #startsAfter: number;

  constructor(after: number) {
    this.#startsAfter = after;
  }

  /** Takes the next event of the log. */
  add(frame: Frame, { audiences, expiresAt }: EventMeta): void {
    this.#cached.push({ frame, audiences, expiresAt });
    this.#bytes += getSize({ frame, audiences });
    while (this.#bytes > cachedBytesMax) this.#dropOldest();
    // Moving what is left only when half the array is dead keeps adding cheap.
    if (this.#firstIndex > 64 && this.#firstIndex * 2 > this.#cached.length) {
      this.#cached = this.#cached.slice(this.#firstIndex);
      this.#firstIndex = 0;
    }
  }

  /** The next frames for a reader, or undefined when some of them may have fallen out. */
  read({ audiences, after, bytesMax, now }: ReadRequest): RecentPage | undefined {
    if (after < this.#startsAfter) return undefined;
    const frames: Frame[] = [];
    let bytes = 0;
    for (let index = this.#indexAfter(after); index < this.#cached.length; index += 1) {
      const cached = this.#cached[index];
      if (cached === undefined || isExpired(cached, now)) continue;
      if (!haveCommonAudience(cached.audiences, audiences)) continue;
      if (bytes >= bytesMax) return { frames, more: true };
      frames.push(cached.frame);
      bytes += cached.frame.bytes.length;
    }
    return { frames, more: false };
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
    // The log has no gaps, so the place follows from the number.
    return oldest === undefined
      ? this.#cached.length
      : this.#firstIndex + (seq - oldest.frame.seq) + 1;
  }
}

function getSize({ frame, audiences }: Pick<CachedEvent, 'frame' | 'audiences'>): number {
  return frame.bytes.length + eventOverheadBytes + audiences.length * recipientOverheadBytes;
}

function isExpired({ expiresAt }: EventMeta, now: number): boolean {
  return expiresAt !== undefined && expiresAt <= now;
}

function haveCommonAudience(a: readonly Audience[], b: readonly Audience[]): boolean {
  if (a.length > 32) return b.some((word) => a.includes(word));
  return a.some((word) => b.includes(word));
}
