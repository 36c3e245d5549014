import { scheme } from '../servers/scheme.js';
import { RawTls } from './raw-tls.js';

/** Types of frames. Spec: RFC 9113 §6. */
export const type = {
  data: 0,
  headers: 1,
  priority: 2,
  reset: 3,
  settings: 4,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;

export const flag = { none: 0, endStream: 1, ack: 1, endHeaders: 4 } as const;

/** Error codes. Spec: RFC 9113 §7. */
export const code = { none: 0, protocol: 1, internal: 2, flow: 3, cancel: 8, calm: 11 } as const;

export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
  readonly payload: Buffer;
}

export type Fields = readonly (readonly [name: string, value: string])[];

/** Which frames the client acknowledges by itself. */
interface Acks {
  readonly settings: boolean;
  readonly pings: boolean;
}

export const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');

/**
 * An HTTP/2 client that sends arbitrary frames, valid or not. By default it acknowledges settings and
 * pings. It never sends a window update by itself.
 */
export class RawH2 {
  readonly #tls: RawTls;
  readonly #acks: Acks;
  /** All frames received, in order. */
  readonly frames: Frame[] = [];
  #consumed = 0;

  private constructor(tls: RawTls, acks: Acks) {
    this.#tls = tls;
    this.#acks = acks;
    tls.socket.on('data', () => this.#parseFrames());
  }

  /** Settles when the server's settings have arrived. `windowBytes` is the initial window of each stream. */
  static async open(
    port: number,
    { windowBytes = 65_535, settings: acksSettings = true, pings = true } = {},
  ): Promise<RawH2> {
    const tls = await RawTls.open(port, 'h2');
    const client = new RawH2(tls, { settings: acksSettings, pings });
    client.send(preface, settings([[4, windowBytes]]));
    await client.frame((one) => one.type === type.settings, 'SETTINGS of the server');
    return client;
  }

  get tls(): RawTls {
    return this.#tls;
  }

  get ended(): Promise<void> {
    return this.#tls.ended;
  }

  send(...frames: Buffer[]): void {
    this.#tls.write(Buffer.concat(frames));
  }

  /**
   * Settles with the first matching frame, past or future; undefined when the connection ends first. Rejects
   * after a minute with `missing`, by default the source text of `matches`.
   */
  async frame(
    matches: (frame: Frame) => boolean,
    missing = `a frame for ${matches}`,
  ): Promise<Frame | undefined> {
    await this.#tls.until(() => this.frames.some(matches), missing);
    return this.frames.find(matches);
  }

  /** Settles with the error code of the server's reset; undefined when the connection ends first. */
  async waitForReset(streamId: number): Promise<number | undefined> {
    const isReset = (one: Frame) => one.type === type.reset && one.streamId === streamId;
    const frame = await this.frame(isReset, `a reset of stream ${streamId}`);
    return frame?.payload.readUInt32BE(0);
  }

  /** Settles with the complete body as JSON; undefined when the connection ends first. */
  async readJson(streamId: number): Promise<Record<string, unknown> | undefined> {
    const isLast = (one: Frame) =>
      one.streamId === streamId && one.type <= type.headers && (one.flags & flag.endStream) !== 0;
    const missing = `the end of the response on stream ${streamId}`;
    if ((await this.frame(isLast, missing)) === undefined) return undefined;
    return JSON.parse(this.readData(streamId).toString());
  }

  readData(streamId: number): Buffer {
    const parts = this.frames.filter((one) => one.type === type.data && one.streamId === streamId);
    return Buffer.concat(parts.map(({ payload }) => payload));
  }

  destroy(): void {
    this.#tls.destroy();
  }

  #parseFrames(): void {
    const bytes = this.#tls.received;
    while (bytes.length - this.#consumed >= 9) {
      const end = this.#consumed + 9 + bytes.readUIntBE(this.#consumed, 3);
      if (bytes.length < end) return;
      const one = bytes.subarray(this.#consumed, end);
      this.#consumed = end;
      this.#handleFrame({
        type: one.readUInt8(3),
        flags: one.readUInt8(4),
        streamId: one.readUInt32BE(5) & 0x7fffffff,
        payload: one.subarray(9),
      });
    }
  }

  #handleFrame(one: Frame): void {
    this.frames.push(one);
    if ((one.flags & flag.ack) !== 0) return;
    const { settings: acksSettings, pings } = this.#acks;
    if (one.type === type.settings && acksSettings) this.send(frame(type.settings, flag.ack, 0));
    if (one.type === type.ping && pings) this.send(frame(type.ping, flag.ack, 0, one.payload));
  }
}

export function frame(
  kind: number,
  flags: number,
  streamId: number,
  payload: Buffer = Buffer.alloc(0),
) {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(kind, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(streamId, 5);
  return Buffer.concat([head, payload]);
}

/** Encodes a complete request head, which by default also ends the stream. */
export function headers(
  streamId: number,
  fields: Fields,
  flags: number = flag.endHeaders | flag.endStream,
): Buffer {
  return frame(type.headers, flags, streamId, block(fields));
}

export function data(streamId: number, text: string, flags: number = flag.none): Buffer {
  return frame(type.data, flags, streamId, Buffer.from(text));
}

export function reset(streamId: number, errorCode: number): Buffer {
  return frame(type.reset, flag.none, streamId, uint32(errorCode));
}

export function settings(pairs: readonly (readonly [id: number, value: number])[]): Buffer {
  const payload = Buffer.concat(
    pairs.map(([id, value]) => Buffer.concat([Buffer.of(id >> 8, id & 255), uint32(value)])),
  );
  return frame(type.settings, flag.none, 0, payload);
}

export function windowUpdate(streamId: number, bytes: number): Buffer {
  return frame(type.windowUpdate, flag.none, streamId, uint32(bytes));
}

export function ping(): Buffer {
  return frame(type.ping, flag.none, 0, Buffer.alloc(8));
}

/** Returns the fields that every request needs, followed by `extraFields`. */
export function fields(method: string, path: string, extraFields: Fields = []): Fields {
  return [
    [':method', method],
    [':scheme', scheme],
    [':authority', 'localhost'],
    [':path', path],
    ...extraFields,
  ];
}

/**
 * Encodes header fields without compression: literal, not indexed, not Huffman. Spec: RFC 7541
 * §6.2.2.
 */
export function block(list: Fields): Buffer {
  return Buffer.concat(
    list.map(([name, value]) => Buffer.concat([Buffer.of(0), string(name), string(value)])),
  );
}

function string(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1');
  return Buffer.concat([length(bytes.length), bytes]);
}

/** Encodes an integer: a 7-bit prefix, then 7 bits per byte, lowest first. Spec: RFC 7541 §5.1. */
function length(count: number): Buffer {
  if (count < 127) return Buffer.of(count);
  const bytes = [127];
  let rest = count - 127;
  for (; rest >= 128; rest >>= 7) bytes.push((rest & 127) | 128);
  return Buffer.from([...bytes, rest]);
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
