import { readFile } from 'node:fs/promises';
import { SocketAddress } from 'node:net';
import { endianness } from 'node:os';

/**
 * The addresses that identify a connection of a server; a TCP socket and the TLS socket on it have
 * the same addresses.
 */
export interface SocketEndpoints {
  readonly remoteAddress?: string | undefined;
  readonly remotePort?: number | undefined;
  readonly localAddress?: string | undefined;
}

/** Returns a key that is the same for a TCP socket and the TLS socket on it. */
export function toConnectionKey({
  remoteAddress,
  remotePort,
  localAddress,
}: SocketEndpoints): string {
  return `${remoteAddress} ${remotePort} ${localAddress}`;
}

/**
 * Returns the unacknowledged bytes per connection to a local port, by `toConnectionKey`, for connections
 * on which the kernel is retransmitting. Never rejects.
 *
 * Reads the TCP tables of Linux, because Node exposes neither TCP_USER_TIMEOUT nor TCP_INFO. On other
 * systems the result is empty. A line of a table has 150 bytes and takes about 4 us, mostly outside of the
 * main thread.
 *
 * Spec: proc_net_tcp.rst of the Linux kernel: state established (01), retransmit timer active (01), and
 * at least one retransmission.
 */
export async function readUnackedBytes(localPort: number): Promise<ReadonlyMap<string, number>> {
  const port = toHex(localPort, 4);
  const linePattern = new RegExp(
    `: (\\w+):${port} (\\w+):(\\w{4}) 01 (\\w{8}):\\w{8} 01:\\w{8} (?!00000000)`,
    'g',
  );
  const unackedBytes = new Map<string, number>();
  for (const table of ['/proc/net/tcp', '/proc/net/tcp6']) {
    const text = await readFile(table, 'latin1').catch(() => ''); // Not Linux, or no IPv6.
    for (const [, local = '', remote = '', remotePort = '', bytes = ''] of text.matchAll(
      linePattern,
    )) {
      const key = toConnectionKey({
        remoteAddress: parseAddress(remote),
        remotePort: Number.parseInt(remotePort, 16),
        localAddress: parseAddress(local),
      });
      unackedBytes.set(key, Number.parseInt(bytes, 16));
    }
  }
  return unackedBytes;
}

/** Parses an IP address from 32-bit words in hex, in the byte order of this machine. */
function parseAddress(hexWords: string): string {
  const bytes = Buffer.from(hexWords, 'hex');
  if (endianness() === 'LE') bytes.swap32();
  if (bytes.length === 4) return [...bytes].join('.');
  const groups = bytes.toString('hex').match(/.{4}/g) ?? [];
  return new SocketAddress({ address: groups.join(':'), family: 'ipv6' }).address; // Compressed form.
}

function toHex(value: number, digits: number): string {
  return value.toString(16).toUpperCase().padStart(digits, '0');
}
