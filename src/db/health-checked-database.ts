import { Failure } from '../errors.js';
import { type Database, type Notifier, type Sql, sql } from './database.js';

/**
 * A database of which is known whether it can be written. A disk that is full, or a server that may
 * only be read, still answers every question.
 *
 * A write that is refused makes it doubtful. From then on `probe`, which has to write as much as
 * anybody may, is asked whenever somebody wants to know, until it succeeds: as long as all goes well,
 * knowing costs no write, and what is small does not end the doubt.
 */
export class HealthCheckedDatabase implements Database {
  /** Where the database below has it. */
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

  /** Settles when it answers and, as far as is known, can be written. Rejects otherwise. */
  async check(): Promise<void> {
    if (!this.#needsProbe) {
      await this.#db.query(sql`select 1 as one`);
      return;
    }
    this.#activeProbe ??= this.#runProbe(); // However many ask.
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
