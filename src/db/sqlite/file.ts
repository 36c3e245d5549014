import { closeSync, existsSync, openSync, realpathSync, statSync } from 'node:fs';
import { hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import type { Clock } from '../../clock.js';
import { createFolder } from '../../create-folder.js';
import { LruMap } from '../../util/lru-map.js';
import type { SqliteConnection, SqliteDriver, SqliteStatement } from './load.js';

const busyMs = 5000; // The engine's own default is 0.
/** The primary result code SQLITE_BUSY: another connection holds a lock. */
const busyCode = 5;

/**
 * Returns the real path of a database file, with links resolved. Creates its folder, the file and
 * its lock file, all accessible to the owner only: the database contains password hashes, and read
 * access to the lock file is enough to block the lock.
 */
export function prepareFile(file: string): string {
  if (file === '' || file === ':memory:') {
    throw new Error('Cannot open database: it needs a file, because two threads share it');
  }
  try {
    createFolder(dirname(file), 0o700);
    const requestedPath = join(realpathSync(dirname(file)), basename(file));
    const path = existsSync(requestedPath) ? realpathSync(requestedPath) : requestedPath;
    for (const required of [path, getLockPath(path)]) {
      // An existing file is not opened, because closing it would release a lock that this process may hold on it.
      if (!existsSync(required)) closeSync(openSync(required, 'a', 0o600));
    }
    return path;
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown error';
    throw new Error(`Cannot open database ${file}: ${code}`, { cause });
  }
}

function getLockPath(path: string): string {
  return `${path}.lock`;
}

/** Reasons by primary result code, which is the low byte. Spec: sqlite.org/rescode.html. */
const openStates: Readonly<Record<number, string>> = {
  8: 'it cannot be written by this user',
  11: 'it is damaged',
  14: 'it cannot be read by this user',
  26: 'it is not an SQLite database',
};

/**
 * Opens and initializes a connection. If the engine refuses the file, the error contains the path.
 */
function connect(
  Driver: SqliteDriver,
  { path, readOnly }: { path: string; readOnly: boolean },
  initialize: (connection: SqliteConnection) => void,
): SqliteConnection {
  let connection: SqliteConnection | undefined;
  try {
    connection = new Driver(path, { readOnly });
    initialize(connection);
    return connection;
  } catch (cause) {
    connection?.close();
    const code = cause instanceof Error && 'errcode' in cause ? Number(cause.errcode) : 0;
    const state = openStates[code & 0xff];
    throw state === undefined
      ? cause
      : new Error(`Cannot open database ${path}: ${state}`, { cause });
  }
}

/** Opens the only writing connection. Throws if the disk does not support a write-ahead log. */
export function openWriter(Driver: SqliteDriver, path: string): SqliteConnection {
  return connect(Driver, { path, readOnly: false }, (connection) => {
    connection.exec(`pragma busy_timeout = ${busyMs}`);
    const [mode] = connection.prepare('pragma journal_mode = wal').all();
    if ((mode as { journal_mode?: string })?.journal_mode !== 'wal') {
      throw new Error('Cannot open database: its disk allows no write-ahead log; use a local disk');
    }
    // FULL: acknowledged writes survive a power failure. Group commit makes it affordable.
    connection.exec('pragma synchronous = full');
    connection.exec('pragma foreign_keys = on');
    connection.exec('pragma journal_size_limit = 67108864');
    connection.exec('pragma wal_autocheckpoint = 1000');
  });
}

/** Opens a read-only connection. Each statement sees everything committed before it. */
export function openReader(Driver: SqliteDriver, path: string): SqliteConnection {
  return connect(Driver, { path, readOnly: true }, (connection) => {
    connection.exec(`pragma busy_timeout = ${busyMs}`);
    connection.exec('pragma schema_version'); // Reads the file, so that an invalid one is detected.
  });
}

/** Returns the size of the write-ahead log of a database file. */
export function getWalBytes(path: string): number {
  return statSync(`${path}-wal`, { throwIfNoEntry: false })?.size ?? 0;
}

/**
 * Returns whether the write-ahead log cannot be opened for writing. Closing it releases no lock, because SQLite
 * does not lock this file.
 */
export function isWalReadOnly(path: string): boolean {
  try {
    closeSync(openSync(`${path}-wal`, 'r+'));
    return false;
  } catch (error) {
    return ['EROFS', 'EPERM', 'EACCES'].includes((error as NodeJS.ErrnoException).code ?? '');
  }
}

/** Caches the most recently used prepared statements of one connection. */
export class StatementCache {
  static readonly #countMax = 256;
  static readonly #lengthMax = 8192; // Longer inserts cost more to keep than to prepare again.
  readonly #connection: SqliteConnection;
  readonly #cache = new LruMap<string, SqliteStatement>(StatementCache.#countMax);

  constructor(connection: SqliteConnection) {
    this.#connection = connection;
  }

  prepare(text: string): SqliteStatement {
    const cached = this.#cache.use(text);
    if (cached !== undefined) return cached;
    const statement = this.#connection.prepare(text);
    if (text.length <= StatementCache.#lengthMax) this.#cache.set(text, statement);
    return statement;
  }
}

/**
 * Restricts a database file to one process, because counters and group commit depend on one writer.
 *
 * Holds a write lock on a small database beside the file, `<file>.lock`. The kernel releases the lock however
 * the process ends, so no stale lock remains. A process that does not get the lock can read in this database
 * which process holds the lock.
 */
export class FileLock {
  readonly #connection: SqliteConnection;
  #isHeld = true;

  private constructor(connection: SqliteConnection) {
    this.#connection = connection;
  }

  /** Acquires the lock. Rejects when another process still holds it after `waitMs`. */
  static async acquire(
    Driver: SqliteDriver,
    path: string,
    { waitMs, wallClock = Date.now }: { waitMs: number; wallClock?: Clock },
  ): Promise<FileLock> {
    const connection = connect(Driver, { path: getLockPath(path), readOnly: false }, () => {});
    try {
      const retriesMax = Math.ceil(waitMs / 50);
      for (let retriesLeft = retriesMax; !tryLock(connection, wallClock); retriesLeft--) {
        if (retriesLeft <= 0) throw new Error(buildLockedMessage(path, connection));
        await wait(50);
      }
      return new FileLock(connection);
    } catch (error) {
      connection.close();
      throw error;
    }
  }

  /** Idempotent. */
  release(): void {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    this.#connection.exec('rollback');
    this.#connection.close();
  }
}

/** Returns false if another process holds the lock. */
function tryLock(connection: SqliteConnection, wallClock: Clock): boolean {
  try {
    connection.exec('pragma synchronous = off');
    // The first transaction commits the owner, so that other processes can read it. The second one stays open:
    // its write lock is the lock.
    connection.exec('begin immediate');
    connection.exec('create table if not exists owner (pid integer, host text, since text)');
    connection.exec('delete from owner');
    const since = new Date(wallClock()).toISOString();
    const host = hostname().replaceAll("'", '');
    connection.exec(`insert into owner values (${process.pid}, '${host}', '${since}')`);
    connection.exec('commit');
    connection.exec('begin immediate');
    return true;
  } catch (error) {
    if (
      error instanceof Error &&
      'errcode' in error &&
      (Number(error.errcode) & 0xff) === busyCode
    ) {
      rollBack(connection);
      return false;
    }
    throw error;
  }
}

function rollBack(connection: SqliteConnection): void {
  try {
    connection.exec('rollback');
  } catch {
    // No transaction is open if `begin` found the lock held, and not `commit`.
  }
}

function buildLockedMessage(path: string, connection: SqliteConnection): string {
  const alternative =
    'use a database server (DB_DIALECT=postgres, mariadb or mysql) for several processes';
  return `Cannot open database ${path}: ${describeOwner(connection)} has it open; stop that process, or ${alternative}`;
}

function describeOwner(connection: SqliteConnection): string {
  try {
    const [row] = connection.prepare('select pid, host, since from owner').all();
    const { pid, host, since } = row as { pid: number; host: string; since: string };
    return `process ${pid} on ${host} (since ${since})`;
  } catch {
    return 'another process'; // It has not committed its owner row yet.
  }
}
