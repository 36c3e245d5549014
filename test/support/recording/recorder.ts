import { type Database, questionMark, render, type Sql } from '../../../src/db/database.js';

/** A database that remembers which statements it was asked, each once, as the last call made it. */
export class Recorder implements Database {
  readonly dialect;
  readonly #db: Database;
  readonly #statements: Map<string, Sql>;

  constructor(db: Database, statements = new Map<string, Sql>()) {
    this.dialect = db.dialect;
    this.#db = db;
    this.#statements = statements;
  }

  /** By their text, in which a list counts as one value. */
  get statements(): ReadonlyMap<string, Sql> {
    return this.#statements;
  }

  query<Row extends object>(statement: Sql): Promise<Row[]> {
    this.#note(statement);
    return this.#db.query<Row>(statement);
  }

  execute(statement: Sql): Promise<number> {
    this.#note(statement);
    return this.#db.execute(statement);
  }

  transaction<Result>(work: (tx: Database) => Promise<Result>): Promise<Result> {
    return this.#db.transaction((tx) => work(new Recorder(tx, this.#statements)));
  }

  close(): Promise<void> {
    return this.#db.close();
  }

  #note(statement: Sql): void {
    const text = render(statement, questionMark).replaceAll(/\s+/g, ' ').trim();
    this.#statements.set(text.replaceAll(/\((\?, )+\?\)/g, '(?)'), statement);
  }
}
