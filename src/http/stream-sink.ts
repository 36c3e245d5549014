import type { Writable } from 'node:stream';
import type { Sink } from './reply.js';

export interface StreamSinkOptions<Output extends Writable> {
  readonly output: Output;
  /** Closes the output at once and drops its queued bytes. */
  readonly destroy: (output: Output) => void;
  /** Implements `Sink.roundTrip`. Never rejects. */
  readonly roundTrip: () => Promise<void>;
  /** After `end`, how long the client may take to read queued bytes. */
  readonly endMs: number;
}

/**
 * Maximum number of bytes queued in the output. The output encrypts all bytes of a write at once and calls
 * back only when all of them have been written. The connection retains the buffers of the largest write.
 */
export const sliceBytes = 32 * 1024;

/**
 * Writes the body of a streamed reply to a Node stream: an HTTP/2 stream, or an HTTP/1.1 response.
 *
 * The output gets 32 KiB at a time; the rest is queued here, in the buffers passed to `write`.
 */
export class StreamSink<Output extends Writable> implements Sink {
  readonly #output: Output;
  readonly #destroyOutput: (output: Output) => void;
  readonly #roundTrip: () => Promise<void>;
  readonly #endMs: number;
  readonly #onWritten: (failure?: Error | null) => void;
  #drainWaiters: (() => void)[] = [];
  #closeWaiters: (() => void)[] = [];
  /** Buffers not yet given to the output, in order. */
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  #isEnded = false;
  #isClosed = false;
  #deadline: NodeJS.Timeout | undefined;

  constructor({ output, destroy, roundTrip, endMs }: StreamSinkOptions<Output>) {
    this.#output = output;
    this.#destroyOutput = destroy;
    this.#roundTrip = roundTrip;
    this.#endMs = endMs;
    // One closure for all writes. `drain` does not fit: it is emitted only after the buffer was full.
    this.#onWritten = (failure) => {
      // The socket is closed, but until `close` is emitted the response silently discards writes.
      if (failure) this.destroy();
      if (this.#pendingBytes > 0 && this.#output.writableLength === 0 && !this.closed)
        this.#writeSlice();
      if (this.#drainWaiters.length > 0 && this.queuedBytes === 0) this.#resolveDrained();
    };
    output.on('close', () => this.#handleClose());
  }

  get queuedBytes(): number {
    return this.#isClosed ? 0 : this.#pendingBytes + this.#output.writableLength;
  }

  get closed(): boolean {
    return this.#isClosed || this.#output.destroyed;
  }

  write(bytes: Buffer): void {
    if (this.#isEnded || this.closed || bytes.length === 0) return;
    const outputBytes = this.#output.writableLength;
    if (this.#pendingBytes === 0 && outputBytes + bytes.length <= sliceBytes) {
      this.#output.write(bytes, this.#onWritten);
      return;
    }
    this.#pending.push(bytes);
    this.#pendingBytes += bytes.length;
    if (outputBytes === 0) this.#writeSlice();
  }

  drained(): Promise<void> {
    if (this.closed || this.queuedBytes === 0) return Promise.resolve();
    return new Promise((resolve) => this.#drainWaiters.push(resolve));
  }

  async roundTrip(): Promise<void> {
    if (this.closed) return;
    const closed = new Promise<void>((resolve) => this.#closeWaiters.push(resolve));
    await Promise.race([this.#roundTrip(), closed]);
  }

  end(bytes?: Buffer): void {
    if (this.#isEnded || this.closed) return;
    if (bytes !== undefined) this.write(bytes);
    this.#isEnded = true;
    if (this.#pendingBytes === 0) this.#output.end();
    this.#deadline = setTimeout(() => this.destroy(), this.#endMs).unref();
  }

  destroy(): void {
    this.#isEnded = true;
    this.#dropPending();
    if (!this.closed) this.#destroyOutput(this.#output);
  }

  onClose(listener: () => void): void {
    if (this.closed) queueMicrotask(listener);
    else this.#output.on('close', listener); // Emitted once.
  }

  /** Writes the next slice to the output, corked into one write. */
  #writeSlice(): void {
    let room = sliceBytes;
    this.#output.cork();
    while (room > 0) {
      const first = this.#pending[0];
      if (first === undefined) break;
      const slice = first.subarray(0, room);
      if (slice.length < first.length) this.#pending[0] = first.subarray(room);
      else this.#pending.shift();
      room -= slice.length;
      this.#pendingBytes -= slice.length;
      this.#output.write(slice, this.#onWritten);
    }
    this.#output.uncork();
    if (this.#isEnded && this.#pendingBytes === 0) this.#output.end();
  }

  #handleClose(): void {
    this.#isClosed = true;
    this.#dropPending();
    clearTimeout(this.#deadline);
    this.#resolveDrained();
    for (const resolve of this.#closeWaiters.splice(0)) resolve();
  }

  #dropPending(): void {
    this.#pending = [];
    this.#pendingBytes = 0;
  }

  #resolveDrained(): void {
    const waiters = this.#drainWaiters;
    this.#drainWaiters = [];
    for (const resolve of waiters) resolve();
  }
}
