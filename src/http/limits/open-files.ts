import { readdirSync, readFileSync } from 'node:fs';
import type { Logger } from '../../logging/logger.js';

/** Files, sockets and pipes of this process. */
export interface OpenFiles {
  readonly open: number;
  /** The limit, `ulimit -n`. */
  readonly max: number;
}

/** Descriptors kept free for files that open later: DNS, certificates, log files, more database connections. */
const spareFiles = 64;
/** Below this number of free descriptors, files other than connections have used half of the spare ones. */
const freeMin = spareFiles / 2;
const checkMs = 10_000;
let maxAtStart: number | undefined;

/** Reads the open files from `/proc/self`. Undefined on systems without it, and without a limit. */
export function readOpenFiles(): OpenFiles | undefined {
  try {
    maxAtStart ??= readMax();
    return maxAtStart === undefined ? undefined : { open: countOpen(maxAtStart), max: maxAtStart };
  } catch {
    return undefined; // There is no `/proc`.
  }
}

function readMax(): number | undefined {
  const [, max] = /^Max open files +(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8')) ?? [];
  return max === undefined ? undefined : Number(max);
}

function countOpen(max: number): number {
  try {
    return readdirSync('/proc/self/fd').length - 1; // Without the descriptor that reads the folder.
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EMFILE') throw cause;
    return max;
  }
}

/**
 * Returns the number of TCP connections to accept: `connectionsMax`, or fewer if the limit of open files is too
 * low for the files that are open now, `reserved` more files and all connections. Logs a warning if it returns
 * fewer. Throws if there is no room for a single connection.
 *
 * Without this check, at the limit of open files the kernel would accept more connections and libuv would close
 * them without any event, and the database could not open its files.
 */
export function fitConnections(
  connectionsMax: number,
  { files, reserved, log }: { files: OpenFiles | undefined; reserved: number; log: Logger },
): number {
  if (files === undefined) return connectionsMax;
  const needed = files.open + reserved + spareFiles;
  const room = files.max - needed;
  if (room >= connectionsMax) return connectionsMax;
  if (room < 1) {
    const limit = `the limit of open files (ulimit -n) is ${files.max}`;
    throw new Error(`Cannot accept connections: ${limit}, and ${needed} are needed without them`);
  }
  const fields = { setting: connectionsMax, connectionsMax: room, openFilesMax: files.max };
  log.warn(fields, 'MAX_CONNECTIONS exceeds the limit of open files and is lowered');
  return room;
}

/** Logs when fewer than 32 descriptors are free, and when 64 are free again. Checks every 10 seconds. */
export class OpenFilesMonitor {
  readonly #log: Logger;
  readonly #read: () => OpenFiles | undefined;
  readonly #timer: NodeJS.Timeout;
  #isLow = false;

  constructor(log: Logger, read = readOpenFiles) {
    this.#log = log;
    this.#read = read;
    this.#timer = setInterval(() => this.check(), checkMs).unref();
  }

  check(): void {
    const files = this.#read();
    if (files === undefined) return;
    const free = files.max - files.open;
    if (free < freeMin && !this.#isLow) {
      this.#isLow = true;
      this.#log.warn(files, 'open files reach their limit, connections may be dropped');
    } else if (free >= spareFiles && this.#isLow) {
      this.#isLow = false;
      this.#log.info(files, 'open files are below their limit again');
    }
  }

  close(): void {
    clearInterval(this.#timer);
  }
}
