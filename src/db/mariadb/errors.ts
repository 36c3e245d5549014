import { Failure } from '../../errors.js';
import { ReferenceViolation, UniqueViolation } from '../database.js';
import { statementError, type UnavailableReason, unavailable } from '../failures.js';
import type { DatabaseServerOptions } from '../options.js';
import { isTlsError } from '../tls.js';
import { TransactionConflict } from '../transaction.js';

// Errors are compared by number: the npm package names every code as MariaDB does, and some of these
// codes mean something else on MySQL.
const duplicateKeyErrno = 1062;
const missingReferenceErrno = 1452;
const conflictErrnos = new Set([1213, 1020]); // Deadlock, snapshot (MariaDB 11.6).

/** Codes of a standby, or of the old primary after a failover. */
const readOnlyErrnos = [1036, 1290, 1792, 1836];

const connectionLimitErrnos = [1040, 1203, 1226];

/** An account with an expired password can log in to MariaDB, but each statement fails with this code. */
const mustSetPasswordErrno = 1820;

/** Codes of temporary states. */
const unavailableErrnos: readonly (readonly [UnavailableReason, readonly number[]])[] = [
  ['disk_failing', [3, 1026, 1030, 1180]], // Writing or committing failed.
  ['disk_full', [1021, 1114]],
  // Not allowed, password wrong or expired, account locked.
  ['login_refused', [1044, 1045, 1129, 1130, 1698, mustSetPasswordErrno, 1862, 3118, 4151]],
  ['overloaded', [...connectionLimitErrnos, 1037, 1038, 1041, 1206, 1637]], // Also out of memory, locks.
  ['read_only', readOnlyErrnos],
  // Waiting for a lock, statement killed, statement timeout; connecting, reading and pool of the package.
  ['timeout', [1205, 1317, 1969, 3024, 45012, 45026, 45028, 45042]],
  ['unreachable', [1047, 1053, 1927, 2006, 2013, 4031]], // Not ready, shutting down, connection lost.
];

/** Codes of the package: connection lost or not opened, pool exhausted, timeout. */
const driverErrnos = { from: 45000, to: 45065 };
const parsingPrecisionErrno = 45050; // A number above 2^53: a defect, not a state of the server.

interface NativeError {
  readonly errno: number;
  readonly code: string;
  readonly sqlState: string | undefined;
  readonly isFatal: boolean;
}

/** Maps a native error to the error for callers. Spec: MariaDB and MySQL error reference. */
export function mariadbError(statementText: string, error: unknown): Error {
  if (error instanceof Failure || error instanceof TransactionConflict) return error;
  const native = toNativeError(error);
  const { errno, code } = native;
  const cause = redactValues(error, native);
  if (errno === duplicateKeyErrno) {
    return new UniqueViolation('Cannot write row: its key is taken', { cause });
  }
  if (errno === missingReferenceErrno)
    return new ReferenceViolation('Cannot write row: it refers to a row that does not exist', {
      cause,
    });
  if (conflictErrnos.has(errno)) return new TransactionConflict('Transactions conflict', { cause });
  const isDriverError = errno >= driverErrnos.from && errno <= driverErrnos.to;
  const isLost = errno !== parsingPrecisionErrno && (native.isFatal || isDriverError || errno < 0);
  const lostReason = isTlsError(code) ? 'tls_failed' : 'unreachable';
  const known = unavailableErrnos.find(([, errnos]) => errnos.includes(errno))?.[0];
  const reason = known ?? (isLost ? lostReason : undefined);
  return reason === undefined
    ? statementError(statementText, cause)
    : unavailable(reason, { cause });
}

export const unknownDatabaseErrno = 1049;
export const duplicateColumnErrno = 1060;

/**
 * Returns whether an error of `mariadbError` shows that the open connections cannot be used any more: the
 * server is read-only, or the password had expired when the connection was opened.
 */
export function needsNewConnections(error: unknown): boolean {
  const errno = error instanceof Error ? toNativeError(error.cause).errno : 0;
  return errno === mustSetPasswordErrno || readOnlyErrnos.includes(errno);
}

/** Creates the error for a database that could not be opened. The message says what to check. */
export function mariadbOpenError(options: DatabaseServerOptions, error: unknown): Error {
  const { host, port, database, username } = options;
  const found = error instanceof Failure ? error.cause : error; // A statement, or its deadline, failed.
  const native = toNativeError(found);
  const cause = redactValues(found ?? error, native);
  const states: Record<number, string> = {
    [unknownDatabaseErrno]: `${database} does not exist: npm run sync`,
    1044: `${username} may not use ${database}`,
    1045: `the server refuses the password of ${username}`,
    1698: `the server refuses ${username}`,
    [mustSetPasswordErrno]: `the password of ${username} has expired`,
    1862: `the password of ${username} has expired`,
    45044: 'the password must not be sent without TLS: set DB_SSL',
  };
  for (const errno of connectionLimitErrnos) {
    states[errno] = 'the server has no free connections: see DB_CONNECTIONS';
  }
  const address = host.startsWith('/') ? host : `${host}:${port}`;
  const { errno, code } = native;
  const unknown =
    errno > 0 && errno < driverErrnos.from
      ? `the server at ${address} answers with error ${errno}`
      : `no answer from the server at ${address} (${code || 'timeout'})`;
  return new Error(`Cannot open database: ${states[native.errno] ?? unknown}`, { cause });
}

/** Reads the native fields of an error, or of its cause if the pool only reports a timeout. */
export function toNativeError(error: unknown): NativeError {
  const found = error instanceof Error ? error : new Error(String(error));
  const inner = found.cause;
  const isPoolTimeout = 'errno' in found && found.errno === 45028;
  if (isPoolTimeout && inner instanceof Error) return { ...toNativeError(inner), isFatal: true };
  return {
    errno: 'errno' in found ? Number(found.errno) : 0,
    code: 'code' in found ? String(found.code) : '',
    sqlState: 'sqlState' in found ? String(found.sqlState) : undefined,
    isFatal: 'fatal' in found && found.fatal === true,
  };
}

/** Copies an error for the log. Leaves out the statement and, for a duplicate key, also the value. */
function redactValues(error: unknown, { errno, code, sqlState }: NativeError): Error {
  const message = errno === duplicateKeyErrno ? 'Duplicate entry' : getMessage(error);
  return Object.assign(new Error(message), { errno, code, sqlState });
}

/** Returns the server's own message if there is one, because the package adds the statement to it. */
function getMessage(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return 'sqlMessage' in error ? String(error.sqlMessage) : error.message;
}
