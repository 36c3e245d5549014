import type { Audience } from '../events/audience.js';
import type { Frame } from '../events/frame.js';

interface Addressed {
  readonly audiences: readonly Audience[];
  readonly expiresAt: number | undefined;
}

interface Recent extends Addressed {
  readonly frame: Frame;
}

/** What a reader may see of the events after a position, and whether that is all. */
export interface RecentPage {
  readonly frames: readonly Frame[];
  readonly more: boolean;
}

/** Who reads from where. */
export interface RecentRequest {
  readonly audiences: readonly Audience[];
  readonly after: number;
  /** The frame that goes beyond is the last. */
  readonly bytesMax: number;
  readonly now: number;
}

const keptBytesMax = 8 * 1024 * 1024;

/** About what an event needs beside its bytes, and what one of its addresses needs, if it is long. */
const entryBytes = 256;
const addressBytes = 96;

/**
 * The newest events of the log, already encoded, so that most who come back, and most who fall
 * behind, cost no query. About 8 MiB with their addresses, 17,000 small events; what falls out is
 * read from the log again. That bounds a read, too: it looks at 90,000 addresses at most.
 */
export class RecentEvents {
  /** In log order and without a gap, from `#first` on; what lies before it has fallen out. */
  #kept: (Recent | undefined)[] = [];
  #first = 0;
  #bytes = 0;
  /** Everything after this position, up to the newest, is kept. */
  #after: number;

  constructor(after: number) {
    this.#after = after;
  }

  /** Takes the next event of the log. */
  add(frame: Frame, { audiences, expiresAt }: Addressed): void {
    this.#kept.push({ frame, audiences, expiresAt });
    this.#bytes += sizeOf({ frame, audiences });
    while (this.#bytes > keptBytesMax) this.#dropOldest();
    // Moving what is left only when half the array is dead keeps adding cheap.
    if (this.#first > 64 && this.#first * 2 > this.#kept.length) {
      this.#kept = this.#kept.slice(this.#first);
      this.#first = 0;
    }
  }

  /** The next frames for a reader, or undefined when some of them may have fallen out. */
  read({ audiences, after, bytesMax, now }: RecentRequest): RecentPage | undefined {
    if (after < this.#after) return undefined;
    const frames: Frame[] = [];
    let bytes = 0;
    for (let index = this.#indexAfter(after); index < this.#kept.length; index += 1) {
      const recent = this.#kept[index];
      if (recent === undefined || isExpired(recent, now)) continue;
      if (!shares(recent.audiences, audiences)) continue;
      if (bytes >= bytesMax) return { frames, more: true };
      frames.push(recent.frame);
      bytes += recent.frame.bytes.length;
    }
    return { frames, more: false };
  }

  #dropOldest(): void {
    const oldest = this.#kept[this.#first];
    if (oldest === undefined) return;
    this.#after = oldest.frame.seq;
    this.#bytes -= sizeOf(oldest);
    this.#kept[this.#first] = undefined;
    this.#first += 1;
  }

  #indexAfter(seq: number): number {
    const oldest = this.#kept[this.#first];
    // The log has no gaps, so the place follows from the number.
    return oldest === undefined ? this.#kept.length : this.#first + (seq - oldest.frame.seq) + 1;
  }
}

function sizeOf({ frame, audiences }: Pick<Recent, 'frame' | 'audiences'>): number {
  return frame.bytes.length + entryBytes + audiences.length * addressBytes;
}

function isExpired({ expiresAt }: Addressed, now: number): boolean {
  return expiresAt !== undefined && expiresAt <= now;
}

function shares(some: readonly Audience[], others: readonly Audience[]): boolean {
  if (some.length > 32) return others.some((word) => some.includes(word));
  return some.some((word) => others.includes(word));
}
