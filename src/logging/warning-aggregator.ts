import type { Clock } from '../clock.js';
import type { Logger } from './logger.js';

export interface WarningAggregatorOptions {
  readonly log: Logger;
  /** Returns milliseconds, of which only differences matter. */
  readonly monotonicClock: Clock;
}

type Fields = Readonly<Record<string, unknown>>;

export interface Warning {
  /** One of a short fixed list of texts. */
  readonly kind: string;
  /** Any text that distinguishes warnings of a kind, such as an IP key. */
  readonly subject: string;
  readonly fields: Fields;
  readonly phrase: string;
}

/** Repeats of a warning since it was last logged. */
interface Aggregate {
  loggedAt: number;
  repeated: number;
  /** Fields that all repeats have, with equal values. */
  commonFields: Fields;
  readonly phrase: string;
}

/** Once there are this many aggregates, warnings of new subjects are aggregated by kind alone. */
const aggregatesMax = 100;
const intervalMs = 60_000;

/**
 * Aggregates warnings that clients can trigger. The first one is logged at once. Repeats are
 * counted and logged once a minute in one line, with the fields they share and their number as
 * `repeated`. This limits the lines to slightly over a hundred per minute, so clients cannot fill
 * the disk.
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

  /**
   * Logs the repeats of each aggregate that was last logged a minute ago or earlier. For a timer.
   */
  report(): void {
    const now = this.#monotonicClock();
    for (const [key, aggregate] of this.#aggregates) {
      if (now - aggregate.loggedAt < intervalMs) continue;
      if (aggregate.repeated === 0) this.#aggregates.delete(key);
      else this.#logSummary(aggregate, now);
    }
  }

  /** Logs the repeats of all aggregates and deletes the aggregates. */
  flush(): void {
    for (const aggregate of this.#aggregates.values()) {
      if (aggregate.repeated > 0) this.#logSummary(aggregate, aggregate.loggedAt);
    }
    this.#aggregates.clear();
  }

  #logSummary(aggregate: Aggregate, now: number): void {
    const { commonFields, repeated, phrase } = aggregate;
    aggregate.loggedAt = now;
    aggregate.repeated = 0;
    this.#log.warn({ ...commonFields, repeated }, phrase);
  }
}

function intersectFields(one: Fields, other: Fields): Fields {
  return Object.fromEntries(Object.entries(one).filter(([name, value]) => other[name] === value));
}
