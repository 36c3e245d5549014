import { isIPv4, isIPv6 } from 'node:net';

/**
 * Returns the key that the limits per client address use. For IPv4 the key is the address. For IPv6 it is the
 * /64 network, such as `2001:db8:0:1::/64`, because one household can usually use all 2^64 addresses of its /64.
 * An IPv4-mapped IPv6 address has the key of its IPv4 address. A string that is not an address has the key
 * `unknown`.
 */
export function toIpKey(ip: string): string {
  const address = ip.split('%', 1)[0] ?? ''; // `fe80::1%eth0`
  if (isIPv4(address)) return address;
  if (!isIPv6(address)) return 'unknown';
  const groups = parseIpv6(address);
  if (groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff) {
    return groups
      .slice(6)
      .flatMap((group) => [group >> 8, group & 255])
      .join('.');
  }
  const networkGroups = groups.slice(0, 4).map((group) => group.toString(16));
  return `${networkGroups.join(':')}::/64`;
}

/**
 * Returns the /48 network that contains the /64 of an IP key, such as `2001:db8:0::/48`. Returns undefined for
 * the key of an IPv4 address and for `unknown`. A provider assigns at most a /48 to one customer, who then has
 * 65,536 IP keys.
 */
export function toNetworkKey(ipKey: string): string | undefined {
  if (!ipKey.endsWith('/64')) return undefined;
  return `${ipKey.split(':').slice(0, 3).join(':')}::/48`;
}

/** Returns the eight groups of a valid IPv6 address. */
function parseIpv6(address: string): number[] {
  const [head = '', tail] = address.split('::', 2);
  const before = parseGroups(head);
  const after = tail === undefined ? [] : parseGroups(tail);
  return [...before, ...Array<number>(8 - before.length - after.length).fill(0), ...after];
}

function parseGroups(groups: string): number[] {
  if (groups === '') return [];
  return groups.split(':').flatMap((group) => {
    if (!group.includes('.')) return Number.parseInt(group, 16);
    const [a = 0, b = 0, c = 0, d = 0] = group.split('.').map(Number);
    return [a * 256 + b, c * 256 + d];
  });
}
