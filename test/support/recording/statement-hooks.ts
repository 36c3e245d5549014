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

/**
 * Wraps a database so that the texts of statements that are sent together, in one turn of the event loop, are added
 * to `rounds` as one list.
 */
export function withRoundLog(db: Database, rounds: string[][]): Database {
  let round: string[] | undefined;
  return withStatementHook(db, ({ texts }) => {
    if (round === undefined) {
      round = [];
      rounds.push(round);
      setImmediate(() => {
        round = undefined;
      });
    }
    round.push(texts.join('?'));
  });
}

/** Returns how many rounds come from the one on that locks the counter row, for which publishers wait. */
export function countLockedRounds(rounds: readonly string[][]): number {
  const isLocking = (round: readonly string[]) => round.some((text) => text.includes('log_head'));
  return rounds.length - rounds.findIndex(isLocking);
}
