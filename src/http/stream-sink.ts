import type { Writable } from 'node:stream';
import type { Sink } from './reply.js';

export interface StreamSinkOptions<Output extends Writable> {
  readonly output: Output;
  /** Ends it at once, however much is queued. */
  readonly cut: (output: Output) => void;
  /** After a polite end, how long the client may take for what is queued. */
  readonly endMs: number;
}

/**
 * What the output holds at a time. Whatever it is given it encrypts at once, into buffers that stay
 * as large with the connection; and it says when all of it has been taken, not when some has.
 */
const sliceBytes = 32 * 1024;

/**
 * The body of a streamed reply on a Node stream: an HTTP/2 stream, or an HTTP/1.1 response.
 *
 * The output gets 32 KiB at a time; the rest waits here, as the buffers it came in.
 */
export class StreamSink<Output extends Writable> implements Sink {
  readonly #output: Output;
  readonly #cut: (output: Output) => void;
  readonly #endMs: number;
  readonly #onWritten: (failure?: Error | null) => void;
  #waiting: (() => void)[] = [];
  /** What the output has not been given yet, in order. */
  #held: Buffer[] = [];
  #heldBytes = 0;
  #isEnded = false;
  #isClosed = false;
  #deadline: NodeJS.Timeout | undefined;

  constructor({ output, cut, endMs }: StreamSinkOptions<Output>) {
    this.#output = output;
    this.#cut = cut;
    this.#endMs = endMs;
    // One closure for all writes. `drain` would not do: it comes only after a full buffer.
    this.#onWritten = (failure) => {
      // A socket that has gone: until Node tells of it by `close`, its response takes and drops all.
      if (failure) this.cut();
      if (this.#heldBytes > 0 && this.#output.writableLength === 0 && !this.closed) this.#pass();
      if (this.#waiting.length > 0 && this.queuedBytes === 0) this.#settle();
    };
    output.on('close', () => this.#closed());
  }

  get queuedBytes(): number {
    return this.#isClosed ? 0 : this.#heldBytes + this.#output.writableLength;
  }

  get closed(): boolean {
    return this.#isClosed || this.#output.destroyed;
  }

  write(bytes: Buffer): void {
    if (this.#isEnded || this.closed || bytes.length === 0) return;
    const given = this.#output.writableLength;
    if (this.#heldBytes === 0 && given + bytes.length <= sliceBytes) {
      this.#output.write(bytes, this.#onWritten);
      return;
    }
    this.#held.push(bytes);
    this.#heldBytes += bytes.length;
    if (given === 0) this.#pass();
  }

  drained(): Promise<void> {
    if (this.closed || this.queuedBytes === 0) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  end(bytes?: Buffer): void {
    if (this.#isEnded || this.closed) return;
    if (bytes !== undefined) this.write(bytes);
    this.#isEnded = true;
    if (this.#heldBytes === 0) this.#output.end();
    this.#deadline = setTimeout(() => this.cut(), this.#endMs).unref();
  }

  cut(): void {
    this.#isEnded = true;
    this.#letGo();
    if (!this.closed) this.#cut(this.#output);
  }

  onClose(listener: () => void): void {
    if (this.closed) queueMicrotask(listener);
    else this.#output.on('close', listener); // Node tells of it once.
  }

  /** Gives the output its next slice, as one write. */
  #pass(): void {
    let room = sliceBytes;
    this.#output.cork();
    while (room > 0) {
      const first = this.#held[0];
      if (first === undefined) break;
      const part = first.subarray(0, room);
      if (part.length < first.length) this.#held[0] = first.subarray(room);
      else this.#held.shift();
      room -= part.length;
      this.#heldBytes -= part.length;
      this.#output.write(part, this.#onWritten);
    }
    this.#output.uncork();
    if (this.#isEnded && this.#heldBytes === 0) this.#output.end();
  }

  #closed(): void {
    this.#isClosed = true;
    this.#letGo();
    clearTimeout(this.#deadline);
    this.#settle();
  }

  #letGo(): void {
    this.#held = [];
    this.#heldBytes = 0;
  }

  #settle(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }
}
