import {
  createHash,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
  X509Certificate,
} from 'node:crypto';
import { isIP, SocketAddress } from 'node:net';
import {
  bitString,
  boolean,
  integer,
  objectIdentifier,
  octets,
  sequence,
  set,
  tagged,
  time,
  utf8,
} from './der.js';

export interface SelfSignedCertificate {
  /** PEM with the label `CERTIFICATE`. */
  readonly certificate: string;
  /** PKCS #8 in PEM. */
  readonly privateKey: string;
}

const dayMs = 24 * 60 * 60 * 1000;
const lifeDays = 397; // Plus the day before `nowMs`: 398, the maximum that browsers accepted until March 2026.
/** The organization in certificates that Herald has generated. Herald renews only these. */
const organization = 'Herald development certificate';

/**
 * Creates a self-signed certificate for these host names and IP addresses. Generates its key (EC P-256) unless one
 * is given. The first host is the common name. Valid from a day before `nowMs` until 397 days after it.
 *
 * It is an end-entity certificate, for TLS servers only: its key cannot sign certificates for other hosts
 * that a client would accept. Throws for an empty list, and for a host that is neither a name nor an address.
 *
 * Spec: RFC 5280 §4.1 (fields), §4.2.1 (extensions).
 */
export function createSelfSigned(
  hosts: readonly string[],
  nowMs: number,
  privateKey: KeyObject = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey,
): SelfSignedCertificate {
  const [commonName] = hosts;
  if (commonName === undefined) throw new Error('Cannot make certificate: no host is named');
  const publicKey = createPublicKey(privateKey);
  const name = sequence(attribute('2.5.4.10', organization), attribute('2.5.4.3', commonName));
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

/** Returns whether `createSelfSigned` has made this certificate. */
export function isGenerated({ subject, issuer }: X509Certificate): boolean {
  return subject === issuer && subject.split('\n').includes(`O=${organization}`);
}

/** Returns the hosts of a certificate that `createSelfSigned` has made. */
export function listHosts({ subjectAltName = '' }: X509Certificate): string[] {
  return subjectAltName.split(', ').map((name) => name.replace(/^(DNS|IP Address):/, ''));
}

/** Encodes an attribute of a name. */
function attribute(id: string, value: string): Buffer {
  return set(sequence(objectIdentifier(id), utf8(value)));
}

function extensions(hosts: readonly string[], publicKey: KeyObject): Buffer {
  return sequence(
    extension('2.5.29.19', sequence(), 'critical'), // Not a CA, which is the default and thus not encoded.
    // Bit 0 is digitalSignature; the other seven bits of the byte are unused.
    extension('2.5.29.15', bitString(7, Buffer.of(0x80)), 'critical'),
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

const ecdsaWithSha256 = sequence(objectIdentifier('1.2.840.10045.4.3.2'));
