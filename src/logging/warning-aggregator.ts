import type { Clock } from '../clock.js';
import type { Logger } from './logger.js';

export interface WarningAggregatorOptions {
  readonly log: Logger;
  /** Only differences matter. */
  readonly monotonicClock: Clock;
}

type Fields = Readonly<Record<string, unknown>>;

export interface Warning {
  /** One of a short fixed list. */
  readonly kind: string;
  /** Distinguishes warnings of a kind, such as by IP key; any text. */
  readonly subject: string;
  readonly fields: Fields;
  readonly phrase: string;
}

/** Repeats of a warning since its last line. */
interface Aggregate {
  loggedAt: number;
  repeated: number;
  /** Fields that all repeats have, with equal values. */
  commonFields: Fields;
  readonly phrase: string;
}

/** Number of aggregates. Over the limit, new warnings are aggregated by kind alone. */
const aggregatesMax = 100;
const intervalMs = 60_000;

/**
 * Aggregates warnings that clients can trigger: the first is logged at once, repeats are counted
 * and summarised once a minute in one line with the fields they share and their number as
 * `repeated`. That is a hundred lines a minute or slightly more, so clients cannot fill the disk.
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

  /** Logs the summaries that are a minute old or older. Meant for a timer. */
  report(): void {
    const now = this.#monotonicClock();
    for (const [key, count] of this.#aggregates) {
      if (now - count.loggedAt < intervalMs) continue;
      if (count.repeated === 0) this.#aggregates.delete(key);
      else this.#logSummary(count, now);
    }
  }

  /** Logs the pending summaries. */
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
