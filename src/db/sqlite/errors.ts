import { ReferenceViolation, UniqueViolation } from '../database.js';
import { statementError, type UnavailableReason, unavailable } from '../failures.js';
import type { SqliteErrorParts } from './messages.js';

const missingReferenceCode = 787;
const duplicateKeyCodes = new Set([2067, 1555, 2579]); // UNIQUE, PRIMARY KEY, ROWID.

/**
 * States of the database by primary result code, which is the low byte. After an error with one of
 * these codes the engine may have rolled back the transaction.
 */
const reasons: Readonly<Record<number, UnavailableReason>> = {
  5: 'timeout', // Another process has locked the file.
  6: 'timeout',
  7: 'overloaded', // Out of memory.
  8: 'read_only',
  9: 'refused', // Interrupted.
  10: 'disk_failing',
  13: 'disk_full',
  14: 'disk_failing', // The file cannot be opened.
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
  const reason = reasons[errcode & 0xff];
  if (reason === undefined) return statementError(text, cause);
  return unavailable(reason, { cause, retryAfterMs: 5000 });
}

/** Returns whether the error affects the whole transaction, not only the failed statement. */
export function endsTransaction({ errcode }: SqliteErrorParts): boolean {
  return errcode !== undefined && (errcode & 0xff) in reasons;
}
