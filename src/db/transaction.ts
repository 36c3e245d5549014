import { setTimeout as wait } from 'node:timers/promises';
import type { Database, Dialect, Sql } from './database.js';
import { unavailable } from './failures.js';

/** Runs statements on a connection that belongs to one transaction. */
export interface SqlExecutor {
  query<Row extends object>(statement: Sql): Promise<Row[]>;
  execute(statement: Sql): Promise<number>;
}

/** Thrown by drivers for a deadlock or a serialization failure: a retry may succeed. */
export class TransactionConflict extends Error {
  override readonly name = 'Conflict';
}

const attemptsMax = 3;
const retryDelaysMs = [10, 50];

/**
 * The `Database` that `work` gets, usable until the transaction ends.
 *
 * Keeps the first failure, even if `work` ignores it, and prevents a commit after it: PostgreSQL
 * would silently turn that COMMIT into a ROLLBACK.
 */
export class Transaction implements Database {
  readonly dialect: Dialect;
  readonly #executor: SqlExecutor;
  readonly #running = new Set<Promise<unknown>>();
  #abortReason: { readonly cause: unknown } | undefined;
  #isOpen = true;

  private constructor(dialect: Dialect, executor: SqlExecutor) {
    this.dialect = dialect;
    this.#executor = executor;
  }

  /** Resolves when the transaction can be committed; rejects when it must be rolled back. */
  static async run<Result>(
    dialect: Dialect,
    executor: SqlExecutor,
    work: (tx: Database) => Promise<Result>,
  ): Promise<Result> {
    const tx = new Transaction(dialect, executor);
    try {
      const result = await work(tx);
      tx.#isOpen = false;
      while (tx.#running.size > 0) await Promise.allSettled(tx.#running);
      if (tx.#abortReason !== undefined) throw tx.#abortReason.cause;
      return result;
    } catch (error) {
      tx.#isOpen = false;
      await Promise.allSettled(tx.#running);
      // `work` may have wrapped the error, but `withRetries` needs the original conflict.
      throw tx.#abortReason?.cause instanceof TransactionConflict ? tx.#abortReason.cause : error;
    }
  }

  query<Row extends object>(statement: Sql): Promise<Row[]> {
    return this.#track(() => this.#executor.query<Row>(statement));
  }

  execute(statement: Sql): Promise<number> {
    return this.#track(() => this.#executor.execute(statement));
  }

  transaction(): Promise<never> {
    return Promise.reject(new Error('Cannot begin transaction: one is open'));
  }

  close(): Promise<never> {
    return Promise.reject(new Error('Cannot close database: this is a transaction'));
  }

  async #track<Result>(run: () => Promise<Result>): Promise<Result> {
    if (!this.#isOpen) throw new Error('Cannot run statement: the transaction has ended');
    if (this.#abortReason !== undefined) {
      const { cause } = this.#abortReason;
      throw new Error('Cannot run statement: an earlier statement of the transaction failed', {
        cause,
      });
    }
    const running = run();
    this.#running.add(running);
    try {
      return await running;
    } catch (cause) {
      this.#abortReason ??= { cause };
      throw cause;
    } finally {
      this.#running.delete(running);
    }
  }
}

/**
 * Runs `attempt`, and again after each `TransactionConflict`, at most 3 times in all. After the
 * last conflict, rejects with `service_unavailable`. `random` returns numbers from 0 to 1.
 */
export async function withRetries<Result>(
  attempt: () => Promise<Result>,
  random = Math.random,
): Promise<Result> {
  for (let attempts = 1; ; attempts++) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof TransactionConflict)) throw error;
      if (attempts === attemptsMax) {
        const state = 'too many conflicting transactions';
        throw unavailable('overloaded', { state, cause: error });
      }
      const delayMs = retryDelaysMs[attempts - 1] ?? 0;
      await wait(delayMs * (0.5 + random())); // Jitter against another conflict.
    }
  }
}
