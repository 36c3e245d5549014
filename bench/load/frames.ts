/** Types of HTTP/2 frames. Spec: RFC 9113 §4, §6; header blocks: RFC 7541 §6.2.2. */
export const frameTypes = {
  data: 0,
  headers: 1,
  reset: 3,
  settings: 4,
  ping: 6,
  goAway: 7,
  windowUpdate: 8,
} as const;

/** `endStream` and `ack` are the same bit; the type of the frame decides its meaning. */
export const flags = { endStream: 1, ack: 1, endHeaders: 4, padded: 8 } as const;

/** Size of a frame's header. */
export const frameHeaderBytes = 9;

const windowMax = 2 ** 31 - 1;
const windowDefault = 65_535;
/**
 * Entries of a settings frame: `ENABLE_PUSH` = 0, and `INITIAL_WINDOW_SIZE` = 2^31 - 1. Spec: RFC 9113
 * §6.5.2.
 */
const pushDisabled = [0, 2, 0, 0, 0, 0];
const initialWindowMax = [0, 4, 0x7f, 0xff, 0xff, 0xff];

/** The client's preface, with the largest windows, so that flow control never slows down the server. */
export const connectionPreface = Buffer.concat([
  Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  encodeFrame(frameTypes.settings, 0, 0, Buffer.from([...pushDisabled, ...initialWindowMax])),
  encodeFrame(frameTypes.windowUpdate, 0, 0, encodeUint32(windowMax - windowDefault)),
]);

export function encodeFrame(type: number, flag: number, streamId: number, payload: Buffer): Buffer {
  const header = Buffer.alloc(frameHeaderBytes);
  header.writeUIntBE(payload.length, 0, 3);
  header[3] = type;
  header[4] = flag;
  header.writeUInt32BE(streamId, 5);
  return Buffer.concat([header, payload]);
}

/** Encodes header fields as literals without indexing: longer than necessary, but stateless. */
export function encodeHeaderBlock(fields: Readonly<Record<string, string>>): Buffer {
  const parts = Object.entries(fields).flatMap(([name, value]) => [
    Buffer.from([0]),
    ...encodeLiteral(name),
    ...encodeLiteral(value),
  ]);
  return Buffer.concat(parts);
}

function encodeLiteral(text: string): Buffer[] {
  const bytes = Buffer.from(text);
  return [encodeLength(bytes.length), bytes];
}

/** Encodes a length as an integer with a 7-bit prefix. Spec: RFC 7541 §5.1. */
function encodeLength(length: number): Buffer {
  if (length < 127) return Buffer.from([length]);
  const bytes = [127];
  let remainder = length - 127;
  while (remainder >= 128) {
    bytes.push((remainder % 128) + 128);
    remainder = Math.floor(remainder / 128);
  }
  return Buffer.from([...bytes, remainder]);
}

function encodeUint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
