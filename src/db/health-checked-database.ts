import { Failure } from '../errors.js';
import { type Database, type Notifier, type Sql, sql } from './database.js';

/**
 * A database whose `check` also covers writes, because queries still succeed with a full disk or a
 * read-only database server.
 *
 * After a refused write, `check` calls `probe` until it succeeds. `probe` must write as much as the
 * largest event, because a smaller write may succeed on an almost full disk. While no write fails,
 * a check writes nothing.
 */
export class HealthCheckedDatabase implements Database {
  /** Set if the wrapped database has `batch`. */
  readonly batch?: (statements: readonly Sql[]) => Promise<boolean>;
  readonly #db: Database;
  readonly #probe: (db: Database) => Promise<void>;
  #needsProbe = false;
  #activeProbe: Promise<void> | undefined;

  constructor(db: Database, probe: (db: Database) => Promise<void>) {
    this.#db = db;
    this.#probe = probe;
    if (db.batch !== undefined) {
      const batch = db.batch.bind(db);
      this.batch = (statements) => this.#trackWrite(batch(statements));
    }
  }

  get dialect() {
    return this.#db.dialect;
  }

  get notifier(): Notifier | undefined {
    return this.#db.notifier;
  }

  query<Row extends object>(statement: Sql): Promise<Row[]> {
    return this.#db.query(statement);
  }

  execute(statement: Sql): Promise<number> {
    return this.#trackWrite(this.#db.execute(statement));
  }

  transaction<Result>(work: (tx: Database) => Promise<Result>): Promise<Result> {
    return this.#trackWrite(this.#db.transaction(work));
  }

  close(): Promise<void> {
    return this.#db.close();
  }

  /** Resolves if the database answers and, as far as is known, is writable. Rejects otherwise. */
  async check(): Promise<void> {
    if (!this.#needsProbe) {
      await this.#db.query(sql`select 1 as one`);
      return;
    }
    this.#activeProbe ??= this.#runProbe(); // Concurrent checks share one probe.
    await this.#activeProbe;
  }

  async #trackWrite<Result>(writing: Promise<Result>): Promise<Result> {
    try {
      return await writing;
    } catch (error) {
      if (error instanceof Failure && error.name === 'service_unavailable') this.#needsProbe = true;
      throw error;
    }
  }

  async #runProbe(): Promise<void> {
    try {
      await this.#probe(this.#db);
      this.#needsProbe = false;
    } finally {
      this.#activeProbe = undefined;
    }
  }
}
