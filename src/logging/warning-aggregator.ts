import type { Clock } from '../clock.js';
import type { Logger } from './logger.js';

export interface WarningAggregatorOptions {
  readonly log: Logger;
  /** Only its differences matter. */
  readonly monotonicClock: Clock;
}

type Fields = Readonly<Record<string, unknown>>;

export interface Warning {
  /** Of a short list. */
  readonly kind: string;
  /** Which of its kind it is, such as from where; may be anything. */
  readonly subject: string;
  readonly fields: Fields;
  readonly phrase: string;
}

/** What has come since the last line about it. */
interface Aggregate {
  loggedAt: number;
  repeated: number;
  /** The fields that all of them had, with the same value. */
  commonFields: Fields;
  readonly phrase: string;
}

/** Told apart at a time; what comes beside them is told by its kind alone. */
const aggregatesMax = 100;
const intervalMs = 60_000;

/**
 * Warnings that a stranger can cause with each request: the first is told at once, those that follow
 * are counted, and told once a minute in one line, with the fields that they share and their number as
 * `repeated`. That is some hundred lines a minute at most, so nobody fills a disk with them.
 */
export class WarningAggregator {
  readonly #log: Logger;
  readonly #monotonicClock: Clock;
  readonly #aggregates = new Map<string, Aggregate>();

  constructor({ log, monotonicClock }: WarningAggregatorOptions) {
    this.#log = log;
    this.#monotonicClock = monotonicClock;
  }

  warn({ kind, subject, fields, phrase }: Warning): void {
    const fullKey = `${kind}\0${subject}`;
    const hasRoom = this.#aggregates.has(fullKey) || this.#aggregates.size < aggregatesMax;
    const key = hasRoom ? fullKey : kind;
    const aggregate = this.#aggregates.get(key);
    if (aggregate === undefined) {
      this.#aggregates.set(key, {
        loggedAt: this.#monotonicClock(),
        repeated: 0,
        commonFields: {},
        phrase,
      });
      this.#log.warn(fields, phrase);
    } else {
      aggregate.commonFields =
        aggregate.repeated === 0 ? fields : intersectFields(aggregate.commonFields, fields);
      aggregate.repeated += 1;
    }
  }

  /** Tells what has been counted for a minute; for a timer. */
  report(): void {
    const now = this.#monotonicClock();
    for (const [key, count] of this.#aggregates) {
      if (now - count.loggedAt < intervalMs) continue;
      if (count.repeated === 0) this.#aggregates.delete(key);
      else this.#logSummary(count, now);
    }
  }

  /** Tells what is left. */
  flush(): void {
    for (const count of this.#aggregates.values()) {
      if (count.repeated > 0) this.#logSummary(count, count.loggedAt);
    }
    this.#aggregates.clear();
  }

  #logSummary(count: Aggregate, now: number): void {
    const { commonFields, repeated, phrase } = count;
    count.loggedAt = now;
    count.repeated = 0;
    this.#log.warn({ ...commonFields, repeated }, phrase);
  }
}

function intersectFields(one: Fields, other: Fields): Fields {
  return Object.fromEntries(Object.entries(one).filter(([name, value]) => other[name] === value));
}
