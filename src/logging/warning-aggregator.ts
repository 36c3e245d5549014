import type { Clock } from '../clock.js';
import type { Log } from './log.js';

export interface RepeatsOptions {
  readonly log: Log;
  /** Only its differences matter. */
  readonly clock: Clock;
}

type Fields = Readonly<Record<string, unknown>>;

export interface RepeatedLine {
  /** Of a short list. */
  readonly kind: string;
  /** Which of its kind it is, such as from where; may be anything. */
  readonly of: string;
  readonly fields: Fields;
  readonly phrase: string;
}

/** What has come since the last line about it. */
interface Count {
  toldAt: number;
  repeated: number;
  /** The fields that all of them had, with the same value. */
  alike: Fields;
  readonly phrase: string;
}

/** Told apart at a time; what comes beside them is told by its kind alone. */
const countsMax = 100;
const intervalMs = 60_000;

/**
 * Warnings that a stranger can cause with each request: the first is told at once, those that follow
 * are counted, and told once a minute in one line, with the fields that they share and their number as
 * `repeated`. That is some hundred lines a minute at most, so nobody fills a disk with them.
 */
export class Repeats {
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #counts = new Map<string, Count>();

  constructor({ log, clock }: RepeatsOptions) {
    this.#log = log;
    this.#clock = clock;
  }

  warn({ kind, of, fields, phrase }: RepeatedLine): void {
    const own = `${kind}\0${of}`;
    const hasRoom = this.#counts.has(own) || this.#counts.size < countsMax;
    const key = hasRoom ? own : kind;
    const count = this.#counts.get(key);
    if (count === undefined) {
      this.#counts.set(key, { toldAt: this.#clock(), repeated: 0, alike: {}, phrase });
      this.#log.warn(fields, phrase);
    } else {
      count.alike = count.repeated === 0 ? fields : alikeIn(count.alike, fields);
      count.repeated += 1;
    }
  }

  /** Tells what has been counted for a minute; for a timer. */
  report(): void {
    const now = this.#clock();
    for (const [key, count] of this.#counts) {
      if (now - count.toldAt < intervalMs) continue;
      if (count.repeated === 0) this.#counts.delete(key);
      else this.#tell(count, now);
    }
  }

  /** Tells what is left. */
  end(): void {
    for (const count of this.#counts.values()) {
      if (count.repeated > 0) this.#tell(count, count.toldAt);
    }
    this.#counts.clear();
  }

  #tell(count: Count, now: number): void {
    const { alike, repeated, phrase } = count;
    count.toldAt = now;
    count.repeated = 0;
    this.#log.warn({ ...alike, repeated }, phrase);
  }
}

function alikeIn(one: Fields, other: Fields): Fields {
  return Object.fromEntries(Object.entries(one).filter(([name, value]) => other[name] === value));
}
