import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import { connectionPreface, flags, frame, frameTypes, headBytes, headerBlock } from './frames.js';

export interface ClientHandler {
  /** Called with bytes of a body, `buffer` from `start` to `end`; valid only during the call. */
  onData(streamId: number, buffer: Buffer, start: number, end: number): void;
  onHead?(streamId: number): void;
  onEnd(streamId: number): void;
  onClose(cause: Error | undefined): void;
}

export interface RequestHead {
  readonly method: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Shared by all connections of a thread: each read is consumed before the next one. */
const readBuffer = Buffer.alloc(256 * 1024);

/**
 * A minimal HTTP/2 connection over TLS. Uses several times less CPU than Node's own client, so that
 * thousands on one core still wait for the server. No compression, no priorities, and ignores the
 * server's limits: only for load on benchmark servers.
 */
export class H2Client {
  readonly #socket: TLSSocket;
  readonly #handler: ClientHandler;
  readonly #authority: string;
  #nextStreamId = 1;
  readonly #head = Buffer.alloc(headBytes);
  #headLength = 0;
  #left = 0;
  #control: Buffer[] = [];
  #cause: Error | undefined;

  private constructor(socket: TLSSocket, port: number, handler: ClientHandler) {
    this.#socket = socket;
    this.#handler = handler;
    this.#authority = `localhost:${port}`;
    socket.on('error', (error) => {
      this.#cause = error;
    });
    socket.once('close', () => handler.onClose(this.#cause));
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
            client?.read(buffer as Buffer, length); // It is `readBuffer`.
            return true;
          },
        },
      } as ConnectionOptions); // The types of TLS lack `onread`.
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

  /** Sends a request in one write. Returns its stream id. */
  request({ method, path, headers = {} }: RequestHead, body?: Buffer): number {
    const streamId = this.#nextStreamId;
    this.#nextStreamId += 2;
    const block = headerBlock({
      ':method': method,
      ':scheme': 'https',
      ':authority': this.#authority,
      ':path': path,
      ...headers,
      ...(body === undefined ? {} : { 'content-length': String(body.length) }),
    });
    const end = body === undefined ? flags.endStream : 0;
    const parts = [frame(frameTypes.headers, flags.endHeaders + end, streamId, block)];
    if (body !== undefined) parts.push(...dataFrames(streamId, body));
    this.#socket.write(Buffer.concat(parts));
    return streamId;
  }

  close(): void {
    this.#socket.destroy();
  }

  /** Parses bytes that have arrived; called by the socket. */
  read(buffer: Buffer, length: number): void {
    let at = 0;
    while (at < length) {
      if (this.#headLength < headBytes) {
        const taken = Math.min(headBytes - this.#headLength, length - at);
        buffer.copy(this.#head, this.#headLength, at, at + taken);
        this.#headLength += taken;
        at += taken;
        if (this.#headLength < headBytes) return;
        this.#left = this.#head.readUIntBE(0, 3);
      }
      const taken = Math.min(this.#left, length - at);
      if (taken > 0) this.#payload(buffer, at, at + taken);
      at += taken;
      this.#left -= taken;
      if (this.#left === 0) {
        this.#headLength = 0;
        this.#frameEnd();
      }
    }
  }

  #payload(buffer: Buffer, start: number, end: number): void {
    if (this.#head[3] === frameTypes.data) {
      this.#handler.onData(this.#streamId, buffer, start, end);
    } else if (this.#head[3] === frameTypes.ping) {
      this.#control.push(Buffer.from(buffer.subarray(start, end)));
    }
  }

  #frameEnd(): void {
    const type = this.#head[3];
    const flag = this.#head[4] ?? 0;
    if (type === frameTypes.settings && (flag & flags.ack) === 0) {
      this.#socket.write(frame(frameTypes.settings, flags.ack, 0, Buffer.alloc(0)));
    } else if (type === frameTypes.ping) {
      const payload = Buffer.concat(this.#control.splice(0));
      if ((flag & flags.ack) === 0) this.#socket.write(frame(type, flags.ack, 0, payload));
    } else if (type === frameTypes.headers) {
      this.#handler.onHead?.(this.#streamId);
    }
    const carriesBody = type === frameTypes.headers || type === frameTypes.data;
    const isEnd = carriesBody && (flag & flags.endStream) !== 0;
    if (isEnd || type === frameTypes.reset) this.#handler.onEnd(this.#streamId);
  }

  get #streamId(): number {
    return this.#head.readUInt32BE(5);
  }
}

const framePayloadMax = 16_384;

function dataFrames(streamId: number, body: Buffer): Buffer[] {
  const frames: Buffer[] = [];
  for (let start = 0; start < body.length; start += framePayloadMax) {
    const part = body.subarray(start, start + framePayloadMax);
    const isLast = start + framePayloadMax >= body.length;
    frames.push(frame(frameTypes.data, isLast ? flags.endStream : 0, streamId, part));
  }
  return frames;
}
