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

export const flags = { endStream: 1, ack: 1, endHeaders: 4, padded: 8 } as const;

export const headBytes = 9;

const windowMax = 2 ** 31 - 1;
const windowDefault = 65_535;
const noPush = [0, 2, 0, 0, 0, 0];
const widestWindow = [0, 4, 0x7f, 0xff, 0xff, 0xff];

/** The client preface, with maximum windows, so that flow control never slows the server. */
export const connectionPreface = Buffer.concat([
  Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  frame(frameTypes.settings, 0, 0, Buffer.from([...noPush, ...widestWindow])),
  frame(frameTypes.windowUpdate, 0, 0, wholeNumber(windowMax - windowDefault)),
]);

export function frame(type: number, flag: number, streamId: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(headBytes);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flag;
  head.writeUInt32BE(streamId, 5);
  return Buffer.concat([head, payload]);
}

/** Encodes fields as literals without indexing: longer than necessary, but stateless. */
export function headerBlock(fields: Readonly<Record<string, string>>): Buffer {
  const parts = Object.entries(fields).flatMap(([name, value]) => [
    Buffer.from([0]),
    ...literal(name),
    ...literal(value),
  ]);
  return Buffer.concat(parts);
}

function literal(text: string): Buffer[] {
  const bytes = Buffer.from(text);
  return [prefixed(bytes.length), bytes];
}

/** Encodes a length as an integer with a 7-bit prefix. Spec: RFC 7541 §5.1. */
function prefixed(length: number): Buffer {
  if (length < 127) return Buffer.from([length]);
  const bytes = [127];
  let rest = length - 127;
  while (rest >= 128) {
    bytes.push((rest % 128) + 128);
    rest = Math.floor(rest / 128);
  }
  return Buffer.from([...bytes, rest]);
}

function wholeNumber(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
