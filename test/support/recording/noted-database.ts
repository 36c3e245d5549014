import type { Database, Sql } from '../../../src/db/database.js';

/** Wraps a database to add the text of each statement to `statements`, also in transactions. */
export function withStatementLog(db: Database, statements: string[]): Database {
  return watchedDatabase(db, ({ texts }) => statements.push(texts.join('?').replace(/\s+/g, ' ')));
}

/** Wraps a database to call `onStatement` before each statement, also in transactions. */
export function watchedDatabase(db: Database, onStatement: (statement: Sql) => void): Database {
  const note = (statement: Sql) => {
    onStatement(statement);
    return statement;
  };
  return {
    dialect: db.dialect,
    query: (statement) => db.query(note(statement)),
    execute: (statement) => db.execute(note(statement)),
    transaction: (work) => db.transaction((tx) => work(watchedDatabase(tx, onStatement))),
    close: () => db.close(),
  };
}
