import { Failure } from '../../errors.js';
import { ReferenceViolation, UniqueViolation } from '../database.js';
import { statementError, unavailable } from '../failures.js';
import type { DatabaseServerOptions } from '../options.js';
import { TransactionConflict } from '../transaction.js';

// Errors are compared by number: the npm package names every code as MariaDB does, and some of these
// codes mean something else on MySQL.
const duplicateKeyErrno = 1062;
const missingReferenceErrno = 1452;
const conflictErrnos = new Set([1213, 1020]); // Deadlock, snapshot (MariaDB 11.6).

/** Codes of a standby, or of the old primary after a failover. */
const readOnlyErrnos = [1036, 1290, 1792, 1836];

/** Codes of temporary states. */
const unavailableErrnos = new Set([
  ...[1040, 1203, 1226], // Too many connections.
  ...[1037, 1038, 1041, 1206, 1637], // Out of memory, locks or transactions.
  ...[3, 1021, 1026, 1030, 1114, 1180], // Disk full or failing, table full, commit failed.
  ...readOnlyErrnos,
  ...[1047, 1053, 2006, 2013, 4031], // Not ready, shutting down, connection lost or idle for too long.
  ...[1205, 1317, 1927, 1969, 3024], // Lock timeout, statement or connection killed, statement timeout.
]);

/** Codes of the package: connection lost or not opened, pool exhausted, timeout. */
const driverErrnos = { from: 45000, to: 45060 };
const parsingPrecisionErrno = 45050; // A number above 2^53: a defect, not a state of the server.

interface NativeError {
  readonly errno: number;
  readonly sqlState: string | undefined;
  readonly isFatal: boolean;
}

/** Maps a native error to the error for callers. Spec: MariaDB and MySQL error reference. */
export function mariadbError(statementText: string, error: unknown): Error {
  if (error instanceof Failure || error instanceof TransactionConflict) return error;
  const native = toNativeError(error);
  const { errno } = native;
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
  if (errno !== parsingPrecisionErrno && (native.isFatal || isDriverError || errno < 0)) {
    return unavailable('no connection to the database', cause);
  }
  if (unavailableErrnos.has(errno)) {
    return unavailable('the database cannot do it now', cause);
  }
  return statementError(statementText, cause);
}

export const unknownDatabaseErrno = 1049;
export const duplicateColumnErrno = 1060;

/** Returns whether an error of `mariadbError` says that the server is read-only. */
export function isReadOnly(error: unknown): boolean {
  return error instanceof Error && readOnlyErrnos.includes(toNativeError(error.cause).errno);
}

/** Creates the error for a database that could not be opened; its message says what to check. */
export function mariadbOpenError(options: DatabaseServerOptions, error: unknown): Error {
  const { host, port, database, username } = options;
  const native = toNativeError(error);
  const cause = redactValues(error, native);
  const states: Readonly<Record<number, string>> = {
    [unknownDatabaseErrno]: `${database} does not exist: npm run sync`,
    1044: `${username} may not use ${database}`,
    1045: `the server refuses the password of ${username}`,
    1698: `the server refuses ${username}`,
    45044: 'the password must not be sent without TLS: set DB_SSL',
  };
  const unknown = `no answer from the server at ${host}:${port} (${native.errno})`;
  return new Error(`Cannot open database: ${states[native.errno] ?? unknown}`, { cause });
}

/** Reads the native fields of an error, or of its cause if the pool only reports a timeout. */
export function toNativeError(error: unknown): NativeError {
  const found = error instanceof Error ? error : new Error(String(error));
  const inner = found.cause;
  const isPoolTimeout = 'errno' in found && found.errno === 45028;
  if (isPoolTimeout && inner instanceof Error && 'errno' in inner) return toNativeError(inner);
  return {
    errno: 'errno' in found ? Number(found.errno) : 0,
    sqlState: 'sqlState' in found ? String(found.sqlState) : undefined,
    isFatal: 'fatal' in found && found.fatal === true,
  };
}

/** Copies an error for the log. Leaves out the statement and, for a duplicate key, also the value. */
function redactValues(error: unknown, { errno, sqlState }: NativeError): Error {
  const message = errno === duplicateKeyErrno ? 'Duplicate entry' : getMessage(error);
  return Object.assign(new Error(message), { errno, sqlState });
}

/** Returns the server's own message if there is one, because the package adds the statement to it. */
function getMessage(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return 'sqlMessage' in error ? String(error.sqlMessage) : error.message;
}
