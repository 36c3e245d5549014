import { type Database, questionMark, render, type Sql } from '../db/database.js';
import { closedError } from '../db/failures.js';
import { sqliteError } from '../db/sqlite/errors.js';
import { openWriter, prepareFile } from '../db/sqlite/file.js';
import { loadSqlite, type SqliteConnection } from '../db/sqlite/load.js';
import { toErrorParts } from '../db/sqlite/messages.js';
import { Transaction } from '../db/transaction.js';

/**
 * The embedded database for short commands. Usable while a server runs.
 *
 * It does not take the exclusive lock of the server. Therefore callers may change only users, sessions
 * and API keys, which the server reads from the database each time, and append control entries to the
 * event log, which the server polls. SQLite lets either the command or the server write; the other
 * waits for at most 5 s. Statements block the thread. The schema must be up to date.
 */
export class CliSqliteDatabase implements Database {
  readonly dialect = 'sqlite';
  readonly #connection: SqliteConnection;
  #isOpen = true;

  private constructor(connection: SqliteConnection) {
    this.#connection = connection;
  }

  static async open(file: string): Promise<CliSqliteDatabase> {
    const Driver = await loadSqlite();
    const connection = openWriter(Driver, prepareFile(file));
    // Only the server checkpoints the WAL: SQLite before 3.51.3 can lose pages when one connection
    // checkpoints while another writes.
    connection.exec('pragma wal_autocheckpoint = 0');
    return new CliSqliteDatabase(connection);
  }

  async query<Row extends object>(statement: Sql): Promise<Row[]> {
    const rows = this.#run(render(statement, questionMark), (text) =>
      this.#connection.prepare(text).all(...statement.values),
    );
    return rows.map((row) => ({ ...(row as Row) })); // The driver's rows have no prototype.
  }

  async execute(statement: Sql): Promise<number> {
    return this.#run(render(statement, questionMark), (text) =>
      Number(this.#connection.prepare(text).run(...statement.values).changes),
    );
  }

  async transaction<Result>(work: (tx: Database) => Promise<Result>): Promise<Result> {
    this.#run('begin immediate');
    try {
      const result = await Transaction.run(this.dialect, this, work);
      this.#run('commit');
      return result;
    } catch (error) {
      try {
        this.#run('rollback');
      } catch {
        // On a full disk SQLite has rolled back already; the first error is the one to report.
      }
      throw error;
    }
  }

  async close(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#connection.close();
  }

  #run<Result>(
    text: string,
    work: (text: string) => Result = (command) => this.#connection.exec(command) as Result,
  ): Result {
    if (!this.#isOpen) throw closedError();
    try {
      return work(text);
    } catch (error) {
      throw sqliteError(text, toErrorParts(error));
    }
  }
}
