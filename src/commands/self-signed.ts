import {
  createHash,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
  X509Certificate,
} from 'node:crypto';
import { isIP, SocketAddress } from 'node:net';

export interface SelfSignedCertificate {
  /** PEM with the label `CERTIFICATE`. */
  readonly certificate: string;
  /** PKCS #8 in PEM. */
  readonly privateKey: string;
}

const dayMs = 24 * 60 * 60 * 1000;
const lifeDays = 397; // With the day before `nowMs` 398, the most that browsers accepted until March 2026.

/**
 * Creates a key (EC P-256) and a self-signed certificate for these host names and IP addresses; the
 * first is the common name. Valid from a day before `nowMs` until 397 days after it.
 *
 * The certificate is a CA of path length 0, so that it can be added to a trust store. The holder of
 * its key can then impersonate any host to clients that trust it, so it is for development only.
 * Throws for an empty list, and for a host that is neither a name nor an address.
 *
 * Spec: RFC 5280 §4.1 (fields), §4.2.1 (extensions); X.690 (DER).
 */
export function createSelfSigned(hosts: readonly string[], nowMs: number): SelfSignedCertificate {
  const [commonName] = hosts;
  if (commonName === undefined) throw new Error('Cannot make certificate: no host is named');
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const name = sequence(set(sequence(objectIdentifier('2.5.4.3'), utf8(commonName))));
  const toBeSigned = sequence(
    tagged(0xa0, integer(Buffer.of(2))), // Version 3 is encoded as 2.
    integer(serialNumber()),
    ecdsaWithSha256,
    name,
    sequence(time(nowMs - dayMs), time(nowMs + lifeDays * dayMs)),
    name,
    exportSpki(publicKey),
    tagged(0xa3, extensions(hosts, publicKey)),
  );
  const signature = sign('sha256', toBeSigned, privateKey);
  const der = sequence(toBeSigned, ecdsaWithSha256, bitString(0, signature));
  return {
    certificate: new X509Certificate(der).toString(),
    privateKey: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  };
}

function extensions(hosts: readonly string[], publicKey: KeyObject): Buffer {
  return sequence(
    extension('2.5.29.19', sequence(boolean(true), integer(Buffer.of(0))), 'critical'), // CA, pathLen 0
    // Bits 0 and 5 are digitalSignature and keyCertSign; the last two bits of the byte are unused.
    extension('2.5.29.15', bitString(2, Buffer.of(0x84)), 'critical'),
    extension('2.5.29.37', sequence(objectIdentifier('1.3.6.1.5.5.7.3.1'))), // serverAuth
    extension('2.5.29.17', sequence(...hosts.map(alternativeName))),
    extension('2.5.29.14', octets(keyId(publicKey))),
  );
}

function extension(id: string, value: Buffer, critical?: 'critical'): Buffer {
  const flag = critical === undefined ? [] : [boolean(true)];
  return sequence(objectIdentifier(id), ...flag, octets(value));
}

function alternativeName(host: string): Buffer {
  if (isIP(host) !== 0) return tagged(0x87, addressBytes(host));
  if (/^(\*\.)?[a-z\d]([a-z\d.-]{0,250}[a-z\d])?$/i.test(host)) {
    return tagged(0x82, Buffer.from(host, 'latin1'));
  }
  throw new Error('Cannot make certificate: a host must be a name or an IP address');
}

/** Returns the 4 or 16 bytes of an IP address. */
function addressBytes(address: string): Buffer {
  if (isIP(address) === 4) return Buffer.from(address.split('.').map(Number));
  // `::` stands for all missing zero groups; `SocketAddress` may keep an IPv4 tail.
  const { address: plain } = new SocketAddress({ address, family: 'ipv6' });
  const [head = '', tail] = withHexTail(plain).split('::');
  const [before, after] = [splitGroups(head), splitGroups(tail ?? '')];
  const zeros = Array.from({ length: 8 - before.length - after.length }, () => '0');
  const groups = [...before, ...zeros, ...after];
  return Buffer.from(groups.map((group) => group.padStart(4, '0')).join(''), 'hex');
}

function splitGroups(text: string): string[] {
  return text === '' ? [] : text.split(':');
}

/** Converts `::ffff:127.0.0.1` to `::ffff:7f00:1`. */
function withHexTail(address: string): string {
  return address.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, a, b, c, d) => {
    const pair = (high: string, low: string) => (Number(high) * 256 + Number(low)).toString(16);
    return `${pair(a, b)}:${pair(c, d)}`;
  });
}

/** Returns 16 random bytes: a positive integer without a leading zero byte. */
function serialNumber(): Buffer {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40;
  return bytes;
}

function exportSpki(publicKey: KeyObject): Buffer {
  return publicKey.export({ type: 'spki', format: 'der' });
}

/**
 * Returns the SHA-1 of the curve point. It only identifies the key, so a weak hash is sufficient.
 * Spec: RFC 5280 §4.2.1.2.
 */
function keyId(publicKey: KeyObject): Buffer {
  return createHash('sha1').update(exportSpki(publicKey).subarray(-65)).digest();
}

/** Encodes tag, length (one, two or three bytes) and content. */
function tagged(tag: number, ...parts: readonly Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  if (length < 0x80) return Buffer.concat([Buffer.of(tag, length), content]);
  if (length < 0x100) return Buffer.concat([Buffer.of(tag, 0x81, length), content]);
  if (length >= 0x1_0000) throw new Error('Cannot make certificate: too many hosts');
  return Buffer.concat([Buffer.of(tag, 0x82, length >> 8, length & 0xff), content]);
}

function sequence(...parts: readonly Buffer[]): Buffer {
  return tagged(0x30, ...parts);
}

function set(part: Buffer): Buffer {
  return tagged(0x31, part);
}

function boolean(value: boolean): Buffer {
  return tagged(0x01, Buffer.of(value ? 0xff : 0));
}

function integer(bytes: Buffer): Buffer {
  return tagged(0x02, bytes);
}

function bitString(unusedBits: number, bytes: Buffer): Buffer {
  return tagged(0x03, Buffer.of(unusedBits), bytes);
}

function octets(bytes: Buffer): Buffer {
  return tagged(0x04, bytes);
}

function utf8(text: string): Buffer {
  return tagged(0x0c, Buffer.from(text, 'utf8'));
}

function objectIdentifier(dotted: string): Buffer {
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
function time(atMs: number): Buffer {
  const digits = `${new Date(atMs).toISOString().replaceAll(/[-:T]|\.\d+Z/g, '')}Z`;
  const isTwoDigitYear = digits < '2050';
  return tagged(
    isTwoDigitYear ? 0x17 : 0x18,
    Buffer.from(isTwoDigitYear ? digits.slice(2) : digits, 'latin1'),
  );
}

const ecdsaWithSha256 = sequence(objectIdentifier('1.2.840.10045.4.3.2'));
