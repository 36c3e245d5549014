import { isIP } from 'node:net';

/** Reason why X-Forwarded-For does not contain the address of the client. */
export type ForwardedForProblem =
  | 'missing'
  | 'fewer addresses than TRUST_PROXY_HOPS'
  | 'not an address';

export interface ClientAddress {
  readonly ip: string;
  /** If set, the address of the client is unknown, and `ip` is the address of the nearest proxy. */
  readonly problem?: ForwardedForProblem;
}

/**
 * Returns the address of the client. Each of `hops` trusted proxies has appended the address of its
 * peer to X-Forwarded-For, so the client is the `hops`-th entry from the right; entries further left were
 * sent by the client and are ignored. Some gateways add a port to an entry: `192.0.2.1:1234` or
 * `[2001:db8::1]:1234`. When the entry of the client is missing or not an address, returns `socketAddress`
 * and the problem. An IPv4-mapped IPv6 address such as `::ffff:192.0.2.1` is returned as IPv4.
 *
 * `readForwardedFor` returns the header, empty if there is none. It is called only if `hops` is above 0.
 */
export function findClientAddress(
  socketAddress: string,
  readForwardedFor: () => string,
  hops: number,
): ClientAddress {
  if (hops === 0) return { ip: unmap(socketAddress) };
  const forwardedFor = readForwardedFor();
  const entry = findFromRight(forwardedFor, hops);
  const address = entry === undefined ? undefined : parseEntry(entry);
  if (address !== undefined) return { ip: unmap(address) };
  return { ip: unmap(socketAddress), problem: findProblem(forwardedFor, entry) };
}

/**
 * Returns the `position`-th entry from the right, counted from 1. Does not read the entries further left: a
 * client can send thousands of them.
 */
function findFromRight(list: string, position: number): string | undefined {
  let end = list.length;
  for (let skipped = 1; skipped < position; skipped += 1) {
    end = findCommaBefore(list, end);
    if (end === -1) return undefined;
  }
  return list.slice(findCommaBefore(list, end) + 1, end).trim();
}

/** Returns the index of the last comma before index `end`, or -1 if there is none. */
function findCommaBefore(list: string, end: number): number {
  return end === 0 ? -1 : list.lastIndexOf(',', end - 1);
}

function parseEntry(entry: string): string | undefined {
  const [, ipv6, ipv4] = /^(?:\[(.+)\]|([\d.]+))(?::\d{1,5})?$/.exec(entry) ?? [];
  const address = ipv6 ?? ipv4 ?? entry;
  return isIP(address) > 0 ? address : undefined;
}

function findProblem(forwardedFor: string, entry: string | undefined): ForwardedForProblem {
  if (forwardedFor === '') return 'missing';
  return entry === undefined ? 'fewer addresses than TRUST_PROXY_HOPS' : 'not an address';
}

function unmap(address: string): string {
  return /^::ffff:[\d.]+$/i.test(address) ? address.slice(7) : address;
}
