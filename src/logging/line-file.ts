import { closeSync, openSync, write, writeSync } from 'node:fs';

/** Lines kept while the disk or the reader of a pipe is behind; past it, newer lines are lost. */
const backlogBytesMax = 1024 * 1024;
const retryMs = 20;
/** Between two writes: each costs as much as a tenth of a request, whether it has one line or many. */
const flushIntervalMs = 20;
/** As many bytes are not left to wait. */
const flushBytesMin = 64 * 1024;
/** More than a machine that has much to do stands still. */
const closeMsMax = 5000;

export interface LineFileOptions {
  /** The line that tells a reader how many were lost around it, line end included. */
  readonly formatLostNote: (lost: number) => string;
  /** Told once when writing begins to fail, and again after it has worked in between. */
  readonly onFailing: (cause: unknown) => void;
}

/**
 * Appends lines to a file or to standard output, in order, without ever blocking the caller.
 *
 * A write that fails (disk full, pipe closed) loses its lines and nothing else: they are counted,
 * the next lines are tried all the same, and the first to succeed come with a note of how many were
 * lost. At most 2 MiB are held in memory; past that, too, lines are lost and counted.
 */
export class LineFile {
  readonly #options: LineFileOptions;
  readonly #path: string | undefined;
  #fd: number;
  #backlog: string[] = [];
  #backlogBytes = 0;
  #writing: Promise<void> | undefined;
  #reopening = false;
  #failing = false;
  #endsMidLine = false; // The last write ended within a line.
  #lostLines = 0;
  #closed = false;
  #endPause: () => void = () => {};

  /** Throws the file system's error when the file cannot be opened for appending. */
  constructor(target: { path: string } | { fd: number }, options: LineFileOptions) {
    this.#options = options;
    this.#path = 'path' in target ? target.path : undefined;
    this.#fd = 'path' in target ? openForAppend(target.path) : target.fd;
  }

  /** Takes a whole line, its end included. Never waits, never throws; ignored once closed. */
  write(line: string): void {
    if (this.#closed) return;
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

  /** Goes on in a new file of the same name, after the old one was moved away. Never throws. */
  reopen(): void {
    if (this.#closed || this.#path === undefined) return;
    this.#reopening = true;
    this.#writing ??= this.#writeAll();
    this.#endPause();
  }

  /** Settles when all is written, or after 5 s if nobody takes it. Never rejects. */
  async close(): Promise<void> {
    if (this.#closed) return this.#writing;
    this.#closed = true;
    this.#endPause();
    let timer: NodeJS.Timeout | undefined;
    const tooLong = new Promise((resolve) => {
      timer = setTimeout(resolve, closeMsMax);
    });
    await Promise.race([this.#writing, tooLong]);
    clearTimeout(timer);
    if (this.#path !== undefined && this.#writing === undefined) closeSync(this.#fd);
  }

  /** For the last moment of a process: writes what waits, once, without asking whether it worked. */
  flush(): void {
    if (this.#closed && this.#writing === undefined) return; // The descriptor is another's by now.
    try {
      writeSync(this.#fd, this.#takeBacklog());
    } catch {
      // Nothing is left to tell it to.
    }
  }

  async #writeAll(): Promise<void> {
    await undefined; // Lines of one turn go out together.
    while (this.#backlog.length > 0 || this.#reopening) {
      if (this.#reopening) this.#reopenFile();
      const count = this.#backlog.length;
      const lostBefore = this.#lostLines;
      const batch = this.#takeBacklog();
      try {
        await this.#writeWhole(batch);
        this.#lostLines -= lostBefore;
        this.#failing = false;
      } catch (cause) {
        this.#lostLines += count;
        if (!this.#failing) this.#options.onFailing(cause);
        this.#failing = true;
      }
      await this.#pause();
    }
    this.#writing = undefined;
  }

  /** Lines that come meanwhile go out together; one that comes after a pause goes out at once. */
  async #pause(): Promise<void> {
    if (this.#closed || this.#reopening || this.#backlogBytes > flushBytesMin) return;
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
      // Nothing taken: the pipe is full, for standard output does not block once Node has it.
      if (taken === 0) await new Promise((resolve) => setTimeout(resolve, retryMs));
      written += taken;
      this.#endsMidLine = written > 0 && batch[written - 1] !== 0x0a;
    }
  }

  #reopenFile(): void {
    this.#reopening = false;
    try {
      const fd = openForAppend(this.#path as string); // Only a file with a path is reopened.
      closeSync(this.#fd);
      this.#fd = fd;
      this.#endsMidLine = false;
    } catch (cause) {
      this.#options.onFailing(cause); // The old file, wherever it was moved, still takes lines.
    }
  }
}

function openForAppend(path: string): number {
  return openSync(path, 'a', 0o640);
}

/** How many bytes were taken; 0 when the reader is behind. */
function writeSome(fd: number, bytes: Buffer): Promise<number> {
  return new Promise((resolve, reject) => {
    write(fd, bytes, 0, bytes.length, null, (cause, taken) => {
      if (cause === null) resolve(taken);
      else if (cause.code === 'EAGAIN') resolve(0);
      else reject(cause);
    });
  });
}
