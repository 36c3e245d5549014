import { readFile } from 'node:fs/promises';
import { SocketAddress } from 'node:net';
import { endianness } from 'node:os';

/** What tells connections of a server apart, also between a TCP socket and the TLS on it. */
export interface SocketEndpoints {
  readonly remoteAddress?: string | undefined;
  readonly remotePort?: number | undefined;
  readonly localAddress?: string | undefined;
}

export function toConnectionKey({
  remoteAddress,
  remotePort,
  localAddress,
}: SocketEndpoints): string {
  return `${remoteAddress} ${remotePort} ${localAddress}`;
}

/**
 * Connections to a port of ours whose peers leave the kernel waiting: it sends again what they do not
 * acknowledge. By `keyOf`, with how many bytes that are. Never rejects.
 *
 * Node has neither TCP_USER_TIMEOUT nor TCP_INFO; Linux has this table, and elsewhere it is empty.
 * A line of it is 150 bytes and costs about 4 us, most of it outside of our thread.
 *
 * Spec: proc_net_tcp.rst of the Linux kernel: established (01), with the timer for sending again on
 * (01), and sent again at least once.
 */
export async function readUnackedBytes(localPort: number): Promise<ReadonlyMap<string, number>> {
  const port = hex(localPort, 4);
  const line = new RegExp(
    `: (\\w+):${port} (\\w+):(\\w{4}) 01 (\\w{8}):\\w{8} 01:\\w{8} (?!00000000)`,
    'g',
  );
  const unackedBytes = new Map<string, number>();
  for (const table of ['/proc/net/tcp', '/proc/net/tcp6']) {
    const text = await readFile(table, 'latin1').catch(() => ''); // Not Linux, or no IPv6.
    for (const [, local = '', remote = '', remotePort = '', bytes = ''] of text.matchAll(line)) {
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

/** Words of 32 bits in the order of bytes of this machine. */
function parseAddress(hexWords: string): string {
  const bytes = Buffer.from(hexWords, 'hex');
  if (endianness() === 'LE') bytes.swap32();
  if (bytes.length === 4) return [...bytes].join('.');
  const groups = bytes.toString('hex').match(/.{4}/g) ?? [];
  return new SocketAddress({ address: groups.join(':'), family: 'ipv6' }).address; // The short form.
}

function hex(value: number, digits: number): string {
  return value.toString(16).toUpperCase().padStart(digits, '0');
}
