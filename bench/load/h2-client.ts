import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import {
  connectionPreface,
  encodeFrame,
  encodeHeaderBlock,
  flags,
  frameHeaderBytes,
  frameTypes,
} from './frames.js';

export interface ClientHandler {
  /**
   * Called with the bytes of a body from `start` to `end`; `buffer` is valid only during the call.
   */
  onData(streamId: number, buffer: Buffer, start: number, end: number): void;
  /** Called when the server ends or resets a stream. */
  onEnd(streamId: number): void;
  onClose(cause: Error | undefined): void;
}

/** A request without its body. */
export interface RequestHead {
  readonly method: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Shared by all connections, because each read is parsed before the next one starts. */
const readBuffer = Buffer.alloc(256 * 1024);

/**
 * A minimal HTTP/2 connection over TLS. It uses several times less CPU than Node's own client, so
 * that one core can drive thousands of connections and the server remains the bottleneck. It does not
 * compress headers, has no priorities and ignores the server's limits, so it is only fit for
 * benchmarks.
 */
export class H2Client {
  readonly #socket: TLSSocket;
  readonly #handler: ClientHandler;
  readonly #authority: string;
  #nextStreamId = 1;
  readonly #frameHeader = Buffer.alloc(frameHeaderBytes);
  #frameHeaderLength = 0;
  #payloadLeft = 0;
  #pingChunks: Buffer[] = [];
  #closeCause: Error | undefined;

  private constructor(socket: TLSSocket, port: number, handler: ClientHandler) {
    this.#socket = socket;
    this.#handler = handler;
    this.#authority = `localhost:${port}`;
    socket.on('error', (error) => {
      this.#closeCause = error;
    });
    socket.once('close', () => handler.onClose(this.#closeCause));
  }

  /** Resolves when TLS is established and the preface is written. */
  static open(port: number, handler: ClientHandler): Promise<H2Client> {
    return new Promise((resolve, reject) => {
      let client: H2Client | undefined;
      const socket = connect({
        host: '127.0.0.1',
        port,
        servername: 'localhost',
        ALPNProtocols: ['h2'],
        rejectUnauthorized: false,
        onread: {
          buffer: readBuffer,
          callback: (length: number, buffer: Uint8Array) => {
            client?.read(buffer as Buffer, length); // Safe: `buffer` is `readBuffer`.
            return true;
          },
        },
      } as ConnectionOptions); // `ConnectionOptions` lacks `onread`.
      socket.setNoDelay(true);
      socket.once('error', reject);
      socket.once('secureConnect', () => {
        socket.off('error', reject);
        client = new H2Client(socket, port, handler);
        socket.write(connectionPreface);
        resolve(client);
      });
    });
  }

  /** Sends a request in one write and returns the id of its stream. */
  request({ method, path, headers = {} }: RequestHead, body?: Buffer): number {
    const streamId = this.#nextStreamId;
    this.#nextStreamId += 2;
    const block = encodeHeaderBlock({
      ':method': method,
      ':scheme': 'https',
      ':authority': this.#authority,
      ':path': path,
      ...headers,
      ...(body === undefined ? {} : { 'content-length': String(body.length) }),
    });
    const endFlag = body === undefined ? flags.endStream : 0;
    const parts = [encodeFrame(frameTypes.headers, flags.endHeaders + endFlag, streamId, block)];
    if (body !== undefined) parts.push(...encodeDataFrames(streamId, body));
    this.#socket.write(Buffer.concat(parts));
    return streamId;
  }

  close(): void {
    this.#socket.destroy();
  }

  /** Parses `length` received bytes. Called for each read of the socket. */
  read(buffer: Buffer, length: number): void {
    let offset = 0;
    while (offset < length) {
      if (this.#frameHeaderLength < frameHeaderBytes) {
        const byteCount = Math.min(frameHeaderBytes - this.#frameHeaderLength, length - offset);
        buffer.copy(this.#frameHeader, this.#frameHeaderLength, offset, offset + byteCount);
        this.#frameHeaderLength += byteCount;
        offset += byteCount;
        if (this.#frameHeaderLength < frameHeaderBytes) return;
        this.#payloadLeft = this.#frameHeader.readUIntBE(0, 3);
      }
      const byteCount = Math.min(this.#payloadLeft, length - offset);
      if (byteCount > 0) this.#handlePayload(buffer, offset, offset + byteCount);
      offset += byteCount;
      this.#payloadLeft -= byteCount;
      if (this.#payloadLeft === 0) {
        this.#frameHeaderLength = 0;
        this.#handleFrameEnd();
      }
    }
  }

  #handlePayload(buffer: Buffer, start: number, end: number): void {
    if (this.#frameHeader[3] === frameTypes.data) {
      this.#handler.onData(this.#streamId, buffer, start, end);
    } else if (this.#frameHeader[3] === frameTypes.ping) {
      this.#pingChunks.push(Buffer.from(buffer.subarray(start, end)));
    }
  }

  #handleFrameEnd(): void {
    const type = this.#frameHeader[3];
    const flag = this.#frameHeader[4] ?? 0;
    if (type === frameTypes.settings && (flag & flags.ack) === 0) {
      this.#socket.write(encodeFrame(frameTypes.settings, flags.ack, 0, Buffer.alloc(0)));
    } else if (type === frameTypes.ping) {
      const payload = Buffer.concat(this.#pingChunks.splice(0));
      if ((flag & flags.ack) === 0) this.#socket.write(encodeFrame(type, flags.ack, 0, payload));
    }
    // On settings and ping frames, this bit means ACK.
    const canEndStream = type === frameTypes.headers || type === frameTypes.data;
    const isEnd = canEndStream && (flag & flags.endStream) !== 0;
    if (isEnd || type === frameTypes.reset) this.#handler.onEnd(this.#streamId);
  }

  get #streamId(): number {
    return this.#frameHeader.readUInt32BE(5);
  }
}

const framePayloadMax = 16_384;

function encodeDataFrames(streamId: number, body: Buffer): Buffer[] {
  const frames: Buffer[] = [];
  for (let start = 0; start < body.length; start += framePayloadMax) {
    const part = body.subarray(start, start + framePayloadMax);
    const isLast = start + framePayloadMax >= body.length;
    frames.push(encodeFrame(frameTypes.data, isLast ? flags.endStream : 0, streamId, part));
  }
  return frames;
}
