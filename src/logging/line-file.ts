import { closeSync, constants, openSync, write, writeSync } from 'node:fs';

/**
 * Maximum size of the backlog while the disk or the reader of a pipe is slow. Further lines are lost
 * and counted.
 */
const backlogBytesMax = 1024 * 1024;
const retryMs = 20;
/** Interval between writes. A write of any number of lines costs about a tenth of a request. */
const flushIntervalMs = 20;
/** A backlog above this size is written without waiting for the interval. */
const flushBytesMin = 64 * 1024;
/** Maximum duration of `close`. A busy machine stalls for less than this. */
const closeMsMax = 5000;

export interface LineFileOptions {
  /** Returns a line, with its line end, that reports the number of lines lost before it. */
  readonly formatLostNote: (lost: number) => string;
  /** Called on the first failed write, and again on the first failure after a success. */
  readonly onFailing: (cause: unknown) => void;
}

/**
 * Appends lines to a file or to standard output, in order, without ever blocking the caller.
 *
 * A failed write (disk full, pipe closed) loses only its own lines. Lost lines are counted, and the next
 * successful write begins with a note of their number. At most 2 MiB are held in memory; lines over the
 * limit are also lost and counted.
 */
export class LineFile {
  readonly #options: LineFileOptions;
  readonly #path: string | undefined;
  #fd: number;
  #backlog: string[] = [];
  #backlogBytes = 0;
  #writing: Promise<void> | undefined;
  #isReopenDue = false;
  #isFailing = false;
  #endsMidLine = false; // The last write ended inside a line.
  #lostLines = 0;
  #isClosed = false;
  #endPause: () => void = () => {};

  /** Throws the file system's error when the file cannot be opened for appending. */
  constructor(target: { path: string } | { fd: number }, options: LineFileOptions) {
    this.#options = options;
    this.#path = 'path' in target ? target.path : undefined;
    this.#fd = 'path' in target ? openForAppend(target.path) : target.fd;
  }

  /** Appends a line with its line end. Never waits, never throws. Does nothing after `close`. */
  write(line: string): void {
    if (this.#isClosed) return;
    const bytes = Buffer.byteLength(line);
    if (this.#backlogBytes + bytes > backlogBytesMax) {
      this.#lostLines += 1;
      return;
    }
    this.#backlog.push(line);
    this.#backlogBytes += bytes;
    this.#writing ??= this.#writeAll();
    if (this.#backlogBytes > flushBytesMin) this.#endPause();
  }

  /** Opens a file at the same path again, because the old file was moved. Never throws. */
  reopen(): void {
    if (this.#isClosed || this.#path === undefined) return;
    this.#isReopenDue = true;
    this.#writing ??= this.#writeAll();
    this.#endPause();
  }

  /** Resolves when everything is written, or after 5 s. Idempotent; never rejects. */
  async close(): Promise<void> {
    if (this.#isClosed) return this.#writing;
    this.#isClosed = true;
    this.#endPause();
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise((resolve) => {
      timer = setTimeout(resolve, closeMsMax);
    });
    await Promise.race([this.#writing, timeout]);
    clearTimeout(timer);
    if (this.#path !== undefined && this.#writing === undefined) closeSync(this.#fd);
  }

  /**
   * Writes the backlog synchronously, when the process exits. Tries once and ignores errors.
   */
  flush(): void {
    if (this.#isClosed && this.#writing === undefined) return; // The descriptor may be reused by now.
    try {
      writeSync(this.#fd, this.#takeBacklog());
    } catch {
      // The process exits, so the failure cannot be reported.
    }
  }

  async #writeAll(): Promise<void> {
    await undefined; // Lines of one event-loop turn share a write.
    while (this.#backlog.length > 0 || this.#isReopenDue) {
      if (this.#isReopenDue) this.#reopenFile();
      const count = this.#backlog.length;
      const lostBefore = this.#lostLines;
      const batch = this.#takeBacklog();
      try {
        await this.#writeWhole(batch);
        this.#lostLines -= lostBefore;
        this.#isFailing = false;
      } catch (cause) {
        this.#lostLines += count;
        if (!this.#isFailing) this.#options.onFailing(cause);
        this.#isFailing = true;
      }
      await this.#pause();
    }
    this.#writing = undefined;
  }

  /**
   * Waits for the interval. Lines that arrive meanwhile share one write; a later line is written at
   * once.
   */
  async #pause(): Promise<void> {
    if (this.#isClosed || this.#isReopenDue || this.#backlogBytes > flushBytesMin) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, flushIntervalMs);
      this.#endPause = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #takeBacklog(): Buffer {
    const note = this.#lostLines > 0 ? this.#options.formatLostNote(this.#lostLines) : '';
    const text = (this.#endsMidLine ? '\n' : '') + note + this.#backlog.join('');
    this.#backlog = [];
    this.#backlogBytes = 0;
    return Buffer.from(text);
  }

  async #writeWhole(batch: Buffer): Promise<void> {
    let written = 0;
    while (written < batch.length) {
      const taken = await writeSome(this.#fd, batch.subarray(written));
      // Zero bytes mean that the pipe is full: Node makes standard output non-blocking.
      if (taken === 0) await new Promise((resolve) => setTimeout(resolve, retryMs));
      written += taken;
      this.#endsMidLine = written > 0 && batch[written - 1] !== 0x0a;
    }
  }

  #reopenFile(): void {
    this.#isReopenDue = false;
    try {
      const fd = openForAppend(this.#path as string); // Only a file with a path is reopened.
      closeSync(this.#fd);
      this.#fd = fd;
      this.#endsMidLine = false;
    } catch (cause) {
      this.#options.onFailing(cause); // The old file can still be written, even if it was moved.
    }
  }
}

function openForAppend(path: string): number {
  const { O_APPEND, O_CREAT, O_WRONLY, O_NONBLOCK } = constants;
  // Without O_NONBLOCK, a named pipe that nobody reads would block the process here.
  return openSync(path, O_APPEND | O_CREAT | O_WRONLY | O_NONBLOCK, 0o640);
}

/** Returns the number of bytes written; 0 when the pipe is full. */
function writeSome(fd: number, bytes: Buffer): Promise<number> {
  return new Promise((resolve, reject) => {
    write(fd, bytes, 0, bytes.length, null, (cause, taken) => {
      if (cause === null) resolve(taken);
      else if (cause.code === 'EAGAIN') resolve(0);
      else reject(cause);
    });
  });
}
