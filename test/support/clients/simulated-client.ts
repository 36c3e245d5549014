import { createParser } from 'eventsource-parser';
import type { Sink } from '../../../src/http/reply.js';

/** The server's end of a simulated connection. Written bytes are queued until the client accepts them. */
export class SimulatedSink implements Sink {
  closed = false;
  writes = 0;
  #queue: Buffer[] = [];
  #ended = false;
  #onDrained: (() => void)[] = [];
  #onClose: (() => void)[] = [];
  readonly #deliver: (bytes: Buffer) => void;

  constructor(deliver: (bytes: Buffer) => void) {
    this.#deliver = deliver;
  }

  get queuedBytes(): number {
    return this.#queue.reduce((sum, bytes) => sum + bytes.length, 0);
  }

  write(bytes: Buffer): void {
    if (this.closed || this.#ended) return;
    this.writes += 1;
    this.#queue.push(bytes);
  }

  drained(): Promise<void> {
    if (this.closed || this.queuedBytes === 0) return Promise.resolve();
    return new Promise((resolve) => this.#onDrained.push(resolve));
  }

  async roundTrip(): Promise<void> {}

  end(bytes?: Buffer): void {
    if (bytes !== undefined) this.write(bytes);
    this.#ended = true;
    this.#settle();
  }

  destroy(): void {
    if (this.closed) return;
    this.closed = true;
    this.#queue = [];
    this.#settle();
    for (const listener of this.#onClose.splice(0)) queueMicrotask(listener);
  }

  onClose(listener: () => void): void {
    if (this.closed) queueMicrotask(listener);
    else this.#onClose.push(listener);
  }

  /** Delivers up to `bytesMax` bytes to the client; may split a write at any position. */
  acceptBytes(bytesMax: number): void {
    let leftBytes = bytesMax;
    while (leftBytes > 0 && this.#queue.length > 0) {
      const first = this.#queue[0] as Buffer; // Safe: the queue is not empty.
      const delivered = first.subarray(0, leftBytes);
      this.#deliver(delivered);
      leftBytes -= delivered.length;
      if (delivered.length === first.length) this.#queue.shift();
      else this.#queue[0] = first.subarray(delivered.length);
    }
    this.#settle();
  }

  #settle(): void {
    if (this.queuedBytes > 0) return;
    for (const resolve of this.#onDrained.splice(0)) resolve();
    if (this.#ended && !this.closed) this.destroy();
  }
}

export interface ReceivedMessage {
  readonly id: string;
  readonly data: string;
}

/** A client that parses events and keeps the last event id, as an EventSource does. */
export class SimulatedClient {
  readonly userId: string;
  readonly received: ReceivedMessage[] = [];
  lastEventId: string | undefined;
  sink: SimulatedSink | undefined;
  readonly #onBytes: (bytes: Buffer) => void;

  constructor(userId: string, onBytes: (bytes: Buffer) => void = () => {}) {
    this.userId = userId;
    this.#onBytes = onBytes;
  }

  /** Number of writes by the server on the current connection. */
  get writes(): number {
    return this.sink?.writes ?? 0;
  }

  connect(): SimulatedSink {
    const parser = createParser({
      onEvent: ({ event, id, data }) => {
        if (id === undefined) return; // A control event.
        this.lastEventId = id;
        if (event !== 'stream.open') this.received.push({ id, data });
      },
    });
    const decoder = new TextDecoder();
    const sink = new SimulatedSink((bytes) => {
      this.#onBytes(bytes);
      parser.feed(decoder.decode(bytes, { stream: true }));
    });
    this.sink = sink;
    return sink;
  }
}
