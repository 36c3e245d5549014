import { ReferenceViolation, UniqueViolation } from '../database.js';
import { statementError, unavailable } from '../failures.js';
import type { SqliteErrorParts } from './messages.js';

const missingReferenceCode = 787;
const duplicateKeyCodes = new Set([2067, 1555, 2579]); // UNIQUE, PRIMARY KEY, ROWID.

/**
 * States of the database by primary result code, which is the low byte. After an error with one of
 * these codes the engine may have rolled back the transaction.
 */
const states: Readonly<Record<number, string>> = {
  5: 'the database file is locked by another process',
  6: 'the database file is locked',
  7: 'out of memory',
  8: 'the database file cannot be written',
  9: 'interrupted',
  10: 'the disk reports an error',
  13: 'the disk is full',
  14: 'the database file cannot be opened',
};

/** Maps an engine error to the error for callers. Spec: sqlite.org/rescode.html. */
export function sqliteError(text: string, { message, errcode }: SqliteErrorParts): Error {
  const cause = Object.assign(new Error(message), errcode === undefined ? {} : { errcode });
  if (errcode === undefined) return statementError(text, cause);
  if (duplicateKeyCodes.has(errcode)) {
    return new UniqueViolation('Cannot write row: its key is taken', { cause });
  }
  if (errcode === missingReferenceCode)
    return new ReferenceViolation('Cannot write row: it refers to a row that does not exist', {
      cause,
    });
  const state = states[errcode & 0xff];
  return state === undefined ? statementError(text, cause) : unavailable(state, cause, 5000);
}

/** Returns whether the error affects the whole transaction, not only the failed statement. */
export function endsTransaction({ errcode }: SqliteErrorParts): boolean {
  return errcode !== undefined && (errcode & 0xff) in states;
}
