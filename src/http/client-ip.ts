import { isIP } from 'node:net';

/**
 * Returns the address of the client. Each of `hops` trusted proxies has appended the address of its
 * peer to X-Forwarded-For, so the client is the `hops`-th entry from the right; entries further left were
 * sent by the client and are ignored. When that entry is missing or not an address, returns
 * `socketAddress`. An IPv4-mapped IPv6 address such as `::ffff:192.0.2.1` is returned as IPv4.
 */
export function clientIp(socketAddress: string, forwardedFor: string, hops: number): string {
  const listed = forwardedFor.split(',').map((entry) => entry.trim());
  const forwarded = hops > 0 ? listed.at(-hops) : undefined;
  const address = forwarded !== undefined && isIP(forwarded) > 0 ? forwarded : socketAddress;
  return /^::ffff:[\d.]+$/i.test(address) ? address.slice(7) : address;
}
