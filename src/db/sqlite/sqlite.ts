import { type Database, questionMark, render, type Sql } from '../database.js';
import { withDeadline } from '../deadline.js';
import { closedError, unavailable } from '../failures.js';
import { migrationsByDialect } from '../migrations/list.js';
import { warnIfNewer } from '../migrations/migrate.js';
import { getLatestVersion } from '../migrations/migration.js';
import type { SqliteOptions } from '../options.js';
import { Transaction } from '../transaction.js';
import { FileLock, openWriter, prepareFile } from './file.js';
import { loadSqlite } from './load.js';
import { migrateConnection } from './migrator.js';
import { DatabaseThread } from './thread.js';

interface SqliteParts {
  readonly reader: DatabaseThread;
  readonly writer: DatabaseThread;
  readonly lock: FileLock;
  readonly deadlineMs: number;
}

const timeoutError = (): Error => unavailable('timeout');

/**
 * The embedded SQLite database: one file, one process.
 *
 * Reads run in a reader thread, on a read-only connection, and see every write that was acknowledged before.
 * Writes run in a writer thread, which commits them in groups, durably, before it acknowledges them. A
 * transaction has the writer thread to itself. A read, a write, the work of a transaction, and the commit of
 * a transaction each settle within `deadlineMs`. If the disk hangs, they reject with
 * `service_unavailable`; a write or commit may then still succeed. A read of an integer beyond 2^53 rejects.
 */
export class SqliteDatabase implements Database {
  readonly dialect = 'sqlite';
  readonly #reader: DatabaseThread;
  readonly #writer: DatabaseThread;
  readonly #lock: FileLock;
  readonly #deadlineMs: number;
  readonly #transactions = new Set<Promise<unknown>>();
  #closing: Promise<void> | undefined;

  private constructor({ reader, writer, lock, deadlineMs }: SqliteParts) {
    this.#reader = reader;
    this.#writer = writer;
    this.#lock = lock;
    this.#deadlineMs = deadlineMs;
  }

  /**
   * Creates the file if it is missing and applies pending migrations. Rejects when another process
   * has the file open, and when the disk does not support a write-ahead log.
   */
  static async open({
    file,
    log,
    wallClock,
    deadlineMs = 15_000,
    lockMs = 2000,
  }: SqliteOptions): Promise<SqliteDatabase> {
    const Driver = await loadSqlite();
    const path = prepareFile(file);
    const clockOption = wallClock === undefined ? {} : { wallClock };
    const lock = await FileLock.acquire(Driver, path, { waitMs: lockMs, ...clockOption });
    try {
      const migrationConnection = openWriter(Driver, path);
      try {
        const { applied, version } = await migrateConnection(migrationConnection, clockOption);
        if (applied.length > 0) log.info({ applied, version }, 'database schema migrated');
        warnIfNewer({ version, latest: getLatestVersion(migrationsByDialect.sqlite) }, log);
      } finally {
        migrationConnection.close();
      }
      const writer = await DatabaseThread.start('writer', { path, log });
      try {
        const reader = await DatabaseThread.start('reader', { path, log });
        return new SqliteDatabase({ reader, writer, lock, deadlineMs });
      } catch (error) {
        await writer.close(); // Before the lock is released to another process.
        throw error;
      }
    } catch (error) {
      lock.release();
      throw error;
    }
  }

  /** Number of commits so far: transactions, batches and groups of single writes. */
  get commits(): number {
    return this.#writer.commits;
  }

  get walBytes(): number {
    return this.#writer.walBytes;
  }

  async query<Row extends object>(statement: Sql): Promise<Row[]> {
    if (this.#closing !== undefined) throw closedError();
    const reading = this.#reader.query(render(statement, questionMark), statement.values);
    return this.#withDeadline(reading as Promise<Row[]>);
  }

  async execute(statement: Sql): Promise<number> {
    if (this.#closing !== undefined) throw closedError();
    return this.#withDeadline(
      this.#writer.execute(render(statement, questionMark), statement.values),
    );
  }

  async batch(statements: readonly Sql[]): Promise<boolean> {
    if (this.#closing !== undefined) throw closedError();
    const steps = statements.map((statement) => ({
      text: render(statement, questionMark),
      values: statement.values,
    }));
    return this.#withDeadline(this.#writer.batch(steps));
  }

  async transaction<Result>(work: (tx: Database) => Promise<Result>): Promise<Result> {
    if (this.#closing !== undefined) throw closedError();
    const running = this.#runTransaction(work);
    this.#transactions.add(running);
    try {
      return await running;
    } finally {
      this.#transactions.delete(running);
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #runTransaction<Result>(work: (tx: Database) => Promise<Result>): Promise<Result> {
    let hasFailed = false;
    const writerTransaction = this.#writer.begin();
    const executor = {
      query: <Row extends object>(statement: Sql) =>
        hasFailed
          ? Promise.reject(timeoutError())
          : (writerTransaction.query(render(statement, questionMark), statement.values) as Promise<
              Row[]
            >),
      execute: (statement: Sql) =>
        hasFailed
          ? Promise.reject(timeoutError())
          : writerTransaction.execute(render(statement, questionMark), statement.values),
    };
    let result: Result;
    try {
      result = await this.#withDeadline(Transaction.run(this.dialect, executor, work));
    } catch (error) {
      hasFailed = true; // `work` may still be running.
      writerTransaction.end('rollback').catch(() => undefined); // Fails only if the thread has ended.
      throw error;
    }
    await this.#withDeadline(writerTransaction.end('commit'));
    return result;
  }

  #withDeadline<Result>(running: Promise<Result>): Promise<Result> {
    return withDeadline(running, this.#deadlineMs, timeoutError);
  }

  async #close(): Promise<void> {
    await Promise.allSettled(this.#transactions);
    // Closed first, so that the writer is the last connection, which checkpoints the write-ahead log.
    await this.#reader.close();
    await this.#writer.close();
    this.#lock.release();
  }
}
