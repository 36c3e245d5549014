const defaultPorts: Readonly<Record<string, string>> = { http: ':80', https: ':443' };

/**
 * Whether two authorities (host with or without port) name the same server. Case and the default port of the
 * scheme do not matter. Spec: RFC 9110 §4.2.3.
 */
export function isSameAuthority(one: string, other: string, scheme: string): boolean {
  return normalize(one, scheme) === normalize(other, scheme);
}

function normalize(authority: string, scheme: string): string {
  const text = authority.toLowerCase();
  const port = defaultPorts[scheme];
  return port !== undefined && text.endsWith(port) ? text.slice(0, -port.length) : text;
}
