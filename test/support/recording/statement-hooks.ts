import type { Database, Sql } from '../../../src/db/database.js';

/** Wraps a database so that the text of each statement, also in transactions, is added to `statements`. */
export function withStatementLog(db: Database, statements: string[]): Database {
  return withStatementHook(db, ({ texts }) =>
    statements.push(texts.join('?').replace(/\s+/g, ' ')),
  );
}

/** Wraps a database so that `onStatement` is called before each statement, also in transactions. */
export function withStatementHook(db: Database, onStatement: (statement: Sql) => void): Database {
  const announce = (statement: Sql) => {
    onStatement(statement);
    return statement;
  };
  return {
    dialect: db.dialect,
    query: (statement) => db.query(announce(statement)),
    execute: (statement) => db.execute(announce(statement)),
    transaction: (work) => db.transaction((tx) => work(withStatementHook(tx, onStatement))),
    close: () => db.close(),
  };
}
