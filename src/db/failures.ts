import { Failure } from '../errors.js';

/** Creates `service_unavailable` for a temporary state of the database; a retry may succeed. */
export function unavailable(state: string, cause?: unknown, retryAfterMs = 1000): Failure {
  return new Failure('service_unavailable', `Cannot access the database: ${state}`, {
    retryAfterMs,
    cause,
  });
}

/**
 * Creates the error for a statement that failed because of a defect, or of a constraint that should
 * have been checked before. Omits bound values.
 */
export function statementError(text: string, cause: unknown): Error {
  return new Error(`Cannot run statement: ${text.replaceAll(/\s+/g, ' ').slice(0, 300)}`, {
    cause,
  });
}

/** Creates the error for use after close: a defect in the close order, hence no `Failure`. */
export function closedError(): Error {
  return new Error('Cannot use database: it is closed');
}
