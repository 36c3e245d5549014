import type { Clock } from '../clock.js';
import { Failure } from '../errors.js';
import type { Logger } from '../logging/logger.js';
import { type Database, type Notifier, type Sql, sql } from './database.js';
import { withDeadline } from './deadline.js';
import { getUnavailableReason, type UnavailableReason, unavailable } from './failures.js';

export interface HealthCheckOptions {
  /**
   * Tests writing. Must write as much as the largest event, because a smaller write may succeed on an almost
   * full disk.
   */
  readonly probe: (db: Database) => Promise<void>;
  readonly log: Logger;
  /** Called for each statement, batch or transaction that failed because the database was unavailable. */
  readonly onUnavailable?: (reason: UnavailableReason) => void;
  readonly monotonicClock?: Clock;
}

interface Outage {
  readonly startedAt: number;
  readonly reasons: Set<UnavailableReason>;
  latestReason: UnavailableReason;
}

const probeIntervalMs = 1000;
/** How long a check waits for a probe. Less than the readiness deadline, so that the response has a reason. */
const probeWaitMs = 500;
/**
 * Sizes of the write-ahead log of the embedded database. A reset truncates the log to `small`, see
 * `openWriter`.
 */
const walBytesLimits = { large: 128 * 1024 * 1024, small: 64 * 1024 * 1024 };

/**
 * A database that detects when it becomes unavailable and when it is available again. It logs each reason of
 * an outage once, and the end of the outage. `check` also covers writes, because queries still succeed with
 * a full disk or a read-only database server.
 *
 * After a failure, `probe` runs every second, and with each `check`, until it succeeds. While nothing
 * fails, a check writes nothing. Overload is not logged, because it passes by itself.
 */
export class HealthCheckedDatabase implements Database {
  /** Set if the wrapped database has `batch`. */
  readonly batch?: (statements: readonly Sql[]) => Promise<boolean>;
  readonly background: Database | undefined;
  readonly #db: Database;
  readonly #options: HealthCheckOptions;
  readonly #monotonicClock: Clock;
  #needsProbe = false;
  #activeProbe: Promise<void> | undefined;
  #probeTimer: NodeJS.Timeout | undefined;
  #outage: Outage | undefined;
  #isWalLarge = false;
  #isOpen = true;

  constructor(db: Database, options: HealthCheckOptions) {
    this.#db = db;
    this.#options = options;
    this.#monotonicClock = options.monotonicClock ?? (() => performance.now());
    if (db.batch !== undefined) {
      const batch = db.batch.bind(db);
      this.batch = (statements) => this.#track(batch(statements));
    }
    const { background } = db;
    this.background = background && {
      dialect: background.dialect,
      notifier: background.notifier,
      query: (statement) => this.#track(background.query(statement)),
      execute: (statement) => this.#track(background.execute(statement)),
      transaction: (work) => this.#track(background.transaction(work)),
      close: () => background.close(),
    };
  }

  get dialect() {
    return this.#db.dialect;
  }

  get notifier(): Notifier | undefined {
    return this.#db.notifier;
  }

  get walBytes(): number {
    return this.#db.walBytes ?? 0;
  }

  query<Row extends object>(statement: Sql): Promise<Row[]> {
    return this.#track(this.#db.query<Row>(statement));
  }

  execute(statement: Sql): Promise<number> {
    return this.#track(this.#db.execute(statement));
  }

  transaction<Result>(work: (tx: Database) => Promise<Result>): Promise<Result> {
    return this.#track(this.#db.transaction(work));
  }

  close(): Promise<void> {
    this.#isOpen = false;
    clearTimeout(this.#probeTimer);
    return this.#db.close();
  }

  /**
   * Resolves if the database responds and, as far as Herald knows, is writable. Returns `wal_large` while
   * the write-ahead log of the embedded database cannot be reset. Rejects otherwise.
   */
  async check(): Promise<'wal_large' | undefined> {
    const latestReason = this.#outage?.latestReason ?? 'timeout';
    const createError = () => unavailable(latestReason);
    if (this.#needsProbe) await withDeadline(this.#runProbe(), probeWaitMs, createError);
    else {
      const reading = (this.background ?? this).query(sql`select 1 as one`);
      await Promise.all([reading, this.#checkWriter()]);
    }
    return this.#isWalLarge ? 'wal_large' : undefined;
  }

  /**
   * Detects that the disk of the embedded database hangs: an empty transaction writes nothing, but waits
   * behind a delayed write.
   */
  async #checkWriter(): Promise<void> {
    if (this.dialect === 'sqlite') await this.transaction(async () => {});
  }

  async #track<Result>(running: Promise<Result>): Promise<Result> {
    try {
      return await running;
    } catch (error) {
      if (error instanceof Failure && error.name === 'service_unavailable') this.#handle(error);
      throw error;
    } finally {
      this.#checkWal();
    }
  }

  #handle(failure: Failure): void {
    this.#needsProbe = true;
    const reason = getUnavailableReason(failure);
    if (reason === undefined) return;
    this.#options.onUnavailable?.(reason);
    if (reason === 'overloaded' || !this.#isOpen) return;
    const startedAt = this.#monotonicClock();
    this.#outage ??= { startedAt, reasons: new Set(), latestReason: reason };
    this.#outage.latestReason = reason;
    if (this.#outage.reasons.has(reason)) return;
    this.#outage.reasons.add(reason);
    this.#options.log.warn({ reason, cause: failure.cause }, 'database unavailable');
    this.#probeLater();
  }

  #probeLater(): void {
    clearTimeout(this.#probeTimer);
    if (!this.#isOpen) return;
    this.#probeTimer = setTimeout(() => {
      this.#runProbe().catch(() => this.#probeLater());
    }, probeIntervalMs).unref();
  }

  /** Runs the probe. Concurrent calls share one run. */
  #runProbe(): Promise<void> {
    this.#activeProbe ??= this.#probe().finally(() => {
      this.#activeProbe = undefined;
    });
    return this.#activeProbe;
  }

  async #probe(): Promise<void> {
    const db = this.#db.background ?? this.#db;
    const reading = db.query(sql`select 1 as one`); // The embedded database reads in another thread.
    await this.#track(Promise.all([this.#options.probe(db), reading]));
    this.#needsProbe = false;
    clearTimeout(this.#probeTimer);
    if (this.#outage === undefined) return;
    const { startedAt, reasons } = this.#outage;
    this.#outage = undefined;
    const ms = Math.round(this.#monotonicClock() - startedAt);
    this.#options.log.info({ reasons: [...reasons], ms }, 'database available again');
  }

  #checkWal(): void {
    const bytes = this.walBytes;
    const isLarge = bytes > (this.#isWalLarge ? walBytesLimits.small : walBytesLimits.large);
    if (isLarge === this.#isWalLarge) return;
    this.#isWalLarge = isLarge;
    const { log } = this.#options;
    if (isLarge) log.warn({ bytes }, 'write-ahead log cannot be reset');
    else log.info({ bytes }, 'write-ahead log was reset');
  }
}
