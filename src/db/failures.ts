import { Failure } from '../errors.js';

/** The states in which the database is unavailable, with the text for clients. */
const states = {
  disk_failing: 'the disk reports an error',
  disk_full: 'the disk is full',
  login_refused: 'no connection to the database', // Clients need not know why.
  overloaded: 'too many statements are waiting',
  read_only: 'the database is read-only',
  refused: 'the database cannot do it now',
  timeout: 'the database does not answer in time',
  tls_failed: 'no connection to the database',
  unreachable: 'no connection to the database',
} as const;

/** The name of a state in `/health/ready`, in the log and in metrics. */
export type UnavailableReason = keyof typeof states;

interface UnavailableDetails {
  readonly cause?: unknown;
  readonly retryAfterMs?: number;
  /** Replaces the text of the reason. */
  readonly state?: string;
}

/** Creates `service_unavailable` for a temporary state of the database; a retry may succeed. */
export function unavailable(
  reason: UnavailableReason,
  { cause, retryAfterMs = 1000, state = states[reason] }: UnavailableDetails = {},
): Failure {
  const message = `Cannot access the database: ${state}`;
  return new Failure('service_unavailable', message, { reason, retryAfterMs, cause });
}

/** Returns the reason of an error that `unavailable` created; undefined for any other error. */
export function getUnavailableReason(error: unknown): UnavailableReason | undefined {
  const reason = error instanceof Failure ? error.reason : undefined;
  return reason !== undefined && reason in states ? (reason as UnavailableReason) : undefined;
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

/**
 * Creates the error for a call after `close`. Such a call is a defect in the close order, so the error is no
 * `Failure`.
 */
export function closedError(): Error {
  return new Error('Cannot use database: it is closed');
}
