import { Failure } from '../errors.js';

/** The database cannot do it now; asking again later may help. */
export function unavailable(state: string, cause?: unknown, retryAfterMs = 1000): Failure {
  return new Failure('service_unavailable', `Cannot access the database: ${state}`, {
    retryAfterMs,
    cause,
  });
}

/** A defect of ours, or a constraint that should have been checked. Never shows values. */
export function statementError(text: string, cause: unknown): Error {
  return new Error(`Cannot run statement: ${text.replaceAll(/\s+/g, ' ').slice(0, 300)}`, {
    cause,
  });
}

/** Not expected while the order of closing is kept, hence no `Failure`. */
export function closedError(): Error {
  return new Error('Cannot use database: it is closed');
}
