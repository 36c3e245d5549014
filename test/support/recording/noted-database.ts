import type { Database, Sql } from '../../../src/db/database.js';

/** The same database; the text of each statement is added to `statements`, also in transactions. */
export function notedDatabase(db: Database, statements: string[]): Database {
  const note = (statement: Sql) => {
    statements.push(statement.texts.join('?').replace(/\s+/g, ' '));
    return statement;
  };
  return {
    dialect: db.dialect,
    query: (statement) => db.query(note(statement)),
    execute: (statement) => db.execute(note(statement)),
    transaction: (work) => db.transaction((tx) => work(notedDatabase(tx, statements))),
    close: () => db.close(),
  };
}
