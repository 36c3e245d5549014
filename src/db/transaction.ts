import { setTimeout as wait } from 'node:timers/promises';
import type { Database, Dialect, Sql } from './database.js';
import { unavailable } from './failures.js';

/** A connection that belongs to one transaction. */
export interface Session {
  query<Row extends object>(statement: Sql): Promise<Row[]>;
  execute(statement: Sql): Promise<number>;
}

/** Thrown by drivers for a deadlock or a failed serialisation: the same again may succeed. */
export class Conflict extends Error {
  override readonly name = 'Conflict';
}

const triesMax = 3;
const pausesMs = [10, 50];

/**
 * What `work` sees of a transaction: a `Database` that ends with it.
 *
 * Remembers the first statement that failed, also when `work` did not look, and lets nothing be
 * committed after it: PostgreSQL would answer such a COMMIT with a silent ROLLBACK.
 */
export class Transaction implements Database {
  readonly dialect: Dialect;
  readonly #session: Session;
  readonly #running = new Set<Promise<unknown>>();
  #doom: { readonly cause: unknown } | undefined;
  #open = true;

  private constructor(dialect: Dialect, session: Session) {
    this.dialect = dialect;
    this.#session = session;
  }

  /** Resolves when all is ready to be committed; rejects when it must be rolled back. */
  static async run<Result>(
    dialect: Dialect,
    session: Session,
    work: (tx: Database) => Promise<Result>,
  ): Promise<Result> {
    const tx = new Transaction(dialect, session);
    try {
      const result = await work(tx);
      tx.#open = false;
      while (tx.#running.size > 0) await Promise.allSettled(tx.#running);
      if (tx.#doom !== undefined) throw tx.#doom.cause;
      return result;
    } catch (error) {
      tx.#open = false;
      await Promise.allSettled(tx.#running);
      // `work` may have wrapped it, but whether to try again depends on what the database said.
      throw tx.#doom?.cause instanceof Conflict ? tx.#doom.cause : error;
    }
  }

  query<Row extends object>(statement: Sql): Promise<Row[]> {
    return this.#follow(() => this.#session.query<Row>(statement));
  }

  execute(statement: Sql): Promise<number> {
    return this.#follow(() => this.#session.execute(statement));
  }

  transaction(): Promise<never> {
    return Promise.reject(new Error('Cannot begin transaction: one is open'));
  }

  close(): Promise<never> {
    return Promise.reject(new Error('Cannot close database: this is a transaction'));
  }

  async #follow<Result>(run: () => Promise<Result>): Promise<Result> {
    if (!this.#open) throw new Error('Cannot run statement: the transaction has ended');
    if (this.#doom !== undefined) {
      const { cause } = this.#doom;
      throw new Error('Cannot run statement: one before it failed', { cause });
    }
    const running = run();
    this.#running.add(running);
    try {
      return await running;
    } catch (cause) {
      this.#doom ??= { cause };
      throw cause;
    } finally {
      this.#running.delete(running);
    }
  }
}

/** Runs it again after a `Conflict`, at most 3 times in all; then it is `service_unavailable`. */
export async function retried<Result>(attempt: () => Promise<Result>): Promise<Result> {
  for (let tries = 1; ; tries++) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof Conflict)) throw error;
      if (tries === triesMax) throw unavailable('too many want to write the same', error);
      const pauseMs = pausesMs[tries - 1] ?? 0;
      await wait(pauseMs * (0.5 + Math.random())); // Jitter, so that two do not meet again.
    }
  }
}
