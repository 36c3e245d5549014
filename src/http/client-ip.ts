import { isIP } from 'node:net';

/**
 * The address of the client. With `hops` proxies of ours in front, each has added the address it
 * saw to the right of X-Forwarded-For: the client is the n-th from the right. What stands further
 * left was sent by the client itself and means nothing. IPv4 within IPv6 is shown as IPv4.
 */
export function clientIp(socketAddress: string, forwardedFor: string, hops: number): string {
  const listed = forwardedFor.split(',').map((part) => part.trim());
  const given = hops > 0 ? listed.at(-hops) : undefined;
  const address = given !== undefined && isIP(given) > 0 ? given : socketAddress;
  return /^::ffff:[\d.]+$/i.test(address) ? address.slice(7) : address;
}
