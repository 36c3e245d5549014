import type { Clock } from '../clock.js';
import type { Logger } from '../logging/logger.js';
import { type Database, type Dialect, type Sql, sql } from './database.js';

export interface DatabaseClockOptions {
  readonly db: Pick<Database, 'dialect' | 'query'>;
  readonly log: Logger;
  /** The local clock, which may be wrong. */
  readonly wallClock?: Clock;
  readonly monotonicClock?: Clock;
}

/** The time of the database at a value of the local monotonic clock. */
interface Anchor {
  readonly databaseMs: number;
  readonly monotonicMs: number;
}

const offsetMaxMs = 5000;
const roundTripMaxMs = 2000;
const measureEveryMs = 30_000;
/** Minimum time between two measurements that calls of `now` start. */
const pauseMs = 1000;

/** Queries for the current time. They do not depend on the time zone of the connection. */
const queries: Readonly<Record<Exclude<Dialect, 'sqlite'>, Sql>> = {
  postgres: sql`select cast(extract(epoch from clock_timestamp()) * 1000 as bigint) as ms`,
  mariadb: sql`select timestampdiff(microsecond, '1970-01-01', utc_timestamp(6)) div 1000 as ms`,
  mysql: sql`select timestampdiff(microsecond, '1970-01-01', utc_timestamp(6)) div 1000 as ms`,
};

/**
 * The time that all processes on one database agree on, within a few seconds: the local time while the local
 * clock differs by at most 5 s from the clock of the database, otherwise the database's time.
 *
 * The database's time is measured at the start and every 30 s. Between two measurements this time advances
 * with the monotonic clock, so a jump of the local clock does not affect it. A difference is measured again
 * before it is logged, because the monotonic clock stops while a machine is suspended. The embedded database
 * has no clock of its own: its time is the local time, and nothing is measured.
 */
export class DatabaseClock {
  readonly #options: DatabaseClockOptions;
  readonly #wallClock: Clock;
  readonly #monotonicClock: Clock;
  /** Undefined for the embedded database. */
  #anchor: Anchor | undefined;
  #measuredAt = Number.NEGATIVE_INFINITY;
  #activeMeasurement: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isLoggedAsWrong = false;
  #isUnavailable = false;
  #isOpen = true;

  private constructor(options: DatabaseClockOptions) {
    this.#options = options;
    this.#wallClock = options.wallClock ?? Date.now;
    this.#monotonicClock = options.monotonicClock ?? (() => performance.now());
  }

  /** Measures the database's time for the first time. Rejects when the query fails. */
  static async open(options: DatabaseClockOptions): Promise<DatabaseClock> {
    const clock = new DatabaseClock(options);
    if (options.db.dialect === 'sqlite') return clock;
    await clock.#measure();
    clock.#timer = setInterval(() => void clock.measure(), measureEveryMs).unref();
    return clock;
  }

  /**
   * Returns the time in whole epoch milliseconds. Never waits: when the local clock has begun or
   * ceased to differ, a measurement starts in the background.
   */
  now(): number {
    const localMs = this.#wallClock();
    const offsetMs = this.#getOffset(localMs);
    const isLocalClockWrong = Math.abs(offsetMs) > offsetMaxMs;
    if (isLocalClockWrong !== this.#isLoggedAsWrong) this.#measureSoon();
    return isLocalClockWrong ? Math.round(localMs - offsetMs) : localMs;
  }

  /** How far the local clock is ahead of the database's. Negative when it is behind. */
  get offsetMs(): number {
    return this.#getOffset(this.#wallClock());
  }

  /** Whether the local clock differs by more than 5 s from the database's. */
  get isLocalClockWrong(): boolean {
    return Math.abs(this.offsetMs) > offsetMaxMs;
  }

  /**
   * Measures the database's time. Never rejects: a measurement that fails, or that takes longer than
   * 2 s, changes nothing. Concurrent calls share a measurement.
   */
  measure(): Promise<void> {
    this.#activeMeasurement ??= this.#measureSafely().finally(() => {
      this.#activeMeasurement = undefined;
    });
    return this.#activeMeasurement;
  }

  /** Stops measuring. Idempotent. */
  close(): void {
    this.#isOpen = false;
    clearInterval(this.#timer);
  }

  #measureSoon(): void {
    const isDue = this.#monotonicClock() - this.#measuredAt >= pauseMs;
    if (isDue && this.#isOpen) void this.measure();
  }

  #getOffset(localMs: number): number {
    if (this.#anchor === undefined) return 0;
    const { databaseMs, monotonicMs } = this.#anchor;
    return localMs - databaseMs - (this.#monotonicClock() - monotonicMs);
  }

  async #measureSafely(): Promise<void> {
    try {
      await this.#measure();
      this.#isUnavailable = false;
    } catch (cause) {
      const { log } = this.#options;
      const isLogged = this.#isOpen && !this.#isUnavailable; // Logged once per outage.
      if (isLogged) log.warn({ cause }, 'database time could not be read, retrying');
      this.#isUnavailable = true;
    }
  }

  async #measure(): Promise<void> {
    if (!(await this.#updateAnchor())) return;
    // The machine may have been suspended between the query and its result.
    const isNew = this.isLocalClockWrong && !this.#isLoggedAsWrong;
    if (isNew && !(await this.#updateAnchor())) return;
    this.#logChange();
  }

  /** Returns false and changes nothing if the result arrives too late, unless it is the first one. */
  async #updateAnchor(): Promise<boolean> {
    const { db } = this.#options;
    if (db.dialect === 'sqlite') return false;
    const sentAt = this.#monotonicClock();
    this.#measuredAt = sentAt;
    const [row] = await db.query<{ ms: number }>(queries[db.dialect]);
    if (row === undefined) throw new Error('Cannot read database time: there is no result');
    const roundTripMs = this.#monotonicClock() - sentAt;
    if (roundTripMs > roundTripMaxMs && this.#anchor !== undefined) return false;
    this.#anchor = { databaseMs: row.ms, monotonicMs: sentAt + roundTripMs / 2 };
    return true;
  }

  #logChange(): void {
    const offsetMs = Math.round(this.offsetMs);
    const isLocalClockWrong = Math.abs(offsetMs) > offsetMaxMs;
    if (isLocalClockWrong === this.#isLoggedAsWrong || !this.#isOpen) return;
    this.#isLoggedAsWrong = isLocalClockWrong;
    const { log } = this.#options;
    if (isLocalClockWrong)
      log.warn({ offsetMs }, 'clock differs from the database, using the database time');
    else log.info({ offsetMs }, 'clock agrees with the database again');
  }
}
