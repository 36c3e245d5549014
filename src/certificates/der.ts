/** Encoders for the DER types that a certificate needs. Spec: X.690. */

/** Encodes tag, length (one, two or three bytes) and content. */
export function tagged(tag: number, ...parts: readonly Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  if (length < 0x80) return Buffer.concat([Buffer.of(tag, length), content]);
  if (length < 0x100) return Buffer.concat([Buffer.of(tag, 0x81, length), content]);
  if (length >= 0x1_0000) throw new Error('Cannot make certificate: too many hosts');
  return Buffer.concat([Buffer.of(tag, 0x82, length >> 8, length & 0xff), content]);
}

export function sequence(...parts: readonly Buffer[]): Buffer {
  return tagged(0x30, ...parts);
}

export function set(part: Buffer): Buffer {
  return tagged(0x31, part);
}

export function boolean(value: boolean): Buffer {
  return tagged(0x01, Buffer.of(value ? 0xff : 0));
}

export function integer(bytes: Buffer): Buffer {
  return tagged(0x02, bytes);
}

export function bitString(unusedBits: number, bytes: Buffer): Buffer {
  return tagged(0x03, Buffer.of(unusedBits), bytes);
}

export function octets(bytes: Buffer): Buffer {
  return tagged(0x04, bytes);
}

export function utf8(text: string): Buffer {
  return tagged(0x0c, Buffer.from(text, 'utf8'));
}

export function objectIdentifier(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number);
  return tagged(0x06, Buffer.from([first * 40 + second, ...rest.flatMap(base128)]));
}

/** Encodes seven bits per byte, the highest first; all but the last have the top bit set. */
function base128(value: number): number[] {
  const low = value & 0x7f;
  const high = value >> 7;
  return high === 0 ? [low] : [...base128(high).map((byte) => byte | 0x80), low];
}

/** Encodes whole seconds in UTC, with a two-digit year before 2050. Spec: RFC 5280 §4.1.2.5. */
export function time(atMs: number): Buffer {
  const digits = `${new Date(atMs).toISOString().replaceAll(/[-:T]|\.\d+Z/g, '')}Z`;
  const isTwoDigitYear = digits < '2050';
  return tagged(
    isTwoDigitYear ? 0x17 : 0x18,
    Buffer.from(isTwoDigitYear ? digits.slice(2) : digits, 'latin1'),
  );
}
