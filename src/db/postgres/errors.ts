import { Failure } from '../../errors.js';
import { ReferenceViolation, UniqueViolation } from '../database.js';
import { statementError, type UnavailableReason, unavailable } from '../failures.js';
import type { DatabaseServerOptions } from '../options.js';
import { isTlsError } from '../tls.js';
import { TransactionConflict } from '../transaction.js';
import { isServerError } from './client.js';

/** SQLSTATEs, or their classes, of temporary states. The first match counts. */
const unavailableStates: readonly (readonly [RegExp, UnavailableReason])[] = [
  [/^53100$/, 'disk_full'],
  [/^58/, 'disk_failing'],
  [/^25006$/, 'read_only'], // A standby, or the old primary after a failover.
  [/^28/, 'login_refused'],
  [/^(57014|55P03|25P0[34])$/, 'timeout'], // Statement, lock, idle or long transaction.
  [/^53/, 'overloaded'], // Out of memory or connections.
  [/^(08|57P)/, 'unreachable'], // Connection lost, shutdown.
  [/^(57|3D000)/, 'refused'], // Such as a dropped database.
];

/**
 * Codes of invalid calls to Node or the package. Any other code that is not an SQLSTATE means that
 * the connection failed.
 */
const defectCodes =
  /^(ERR_(?!TLS_|SSL_|SOCKET_|STREAM_)|NOT_TAGGED_CALL|UNDEFINED_VALUE|MAX_PARAMETERS|UNSAFE_)/;

/** SQLSTATEs after which the database server closes the connection. */
const shutdownStates = /^57P0[123]$/;

/** Returns whether an error shows that its connection can no longer be used. */
export function isConnectionLost(error: unknown): boolean {
  if (error instanceof Failure) return false;
  return isServerError(error) ? shutdownStates.test(getErrorCode(error)) : isConnectionError(error);
}

/** Returns whether the package, the socket or TLS failed (certificates may expire at runtime). */
function isConnectionError(error: unknown): boolean {
  if (isServerError(error) || !(error instanceof Error) || !('code' in error)) return false;
  return !defectCodes.test(String(error.code));
}

/** Maps a native error to the error for callers. Spec: PostgreSQL, appendix A (error codes). */
export function postgresError(text: string, error: unknown): Error {
  if (error instanceof Failure || error instanceof TransactionConflict) return error;
  const code = getErrorCode(error);
  const cause = redactValues(error, code);
  if (code === '23505') return new UniqueViolation('Cannot write row: its key is taken', { cause });
  if (code === '23503')
    return new ReferenceViolation('Cannot write row: it refers to a row that does not exist', {
      cause,
    });
  if (code === '40001' || code === '40P01')
    return new TransactionConflict('Transactions conflict', { cause });
  if (isConnectionError(error)) return unavailable(toConnectionReason(code), { cause });
  const reason = unavailableStates.find(([states]) => states.test(code))?.[1];
  return reason === undefined ? statementError(text, cause) : unavailable(reason, { cause });
}

function toConnectionReason(code: string): UnavailableReason {
  if (isTlsError(code)) return 'tls_failed';
  return /TIME(D)?OUT$/.test(code) ? 'timeout' : 'unreachable';
}

/** Returns whether the server refused a write because it is a standby, or the old primary after a failover. */
export function isReadOnly(error: unknown): boolean {
  return getErrorCode(error) === '25006';
}

/** Creates the error for a database that could not be opened. The message says what to check. */
export function postgresOpenError(options: DatabaseServerOptions, error: unknown): Error {
  const { host, port, database, username } = options;
  const code = error instanceof Failure ? 'timeout' : getErrorCode(error);
  const cause = redactValues(error, code);
  if (code === '08P01' && error instanceof Error && /startup parameter/.test(error.message)) {
    const state = 'a pooler in between refuses session settings: set DB_PREPARE=false';
    return new Error(`Cannot open database: ${state}`, { cause });
  }
  const refusal = `PostgreSQL refuses the login of ${username}: check DB_USERNAME, DB_PASSWORD and pg_hba.conf`;
  const states: Readonly<Record<string, string>> = {
    '3D000': `${database} does not exist: npm run sync`,
    '28P01': refusal,
    '28000': refusal,
    '42501': `${username} may not do that`,
    '53300': 'PostgreSQL has no free connections: see DB_CONNECTIONS',
  };
  const address = host.startsWith('/') ? `${host}/.s.PGSQL.${port}` : `${host}:${port}`;
  const state = states[code] ?? `no answer from PostgreSQL at ${address} (${code})`;
  return new Error(`Cannot open database: ${state}`, { cause });
}

export function getErrorCode(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : 'unknown error';
}

/** Copies an error without `detail` (a whole row) and `parameters` (bound values), for the log. */
function redactValues(error: unknown, code: string): unknown {
  if (!(error instanceof Error)) return error;
  const constraint = 'constraint_name' in error ? { constraint: error.constraint_name } : {};
  return Object.assign(new Error(error.message), { code, ...constraint });
}
