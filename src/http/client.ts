import type { Exchange } from './exchange.js';
import { toIpKey } from './ip-key.js';

/** Who is asking, as far as throttling, the session list and the audit lines need to know. */
export interface Client {
  readonly requestId: string;
  /** `ipKeyOf` the address. */
  readonly ipKey: string;
  /** At most 255 printable characters. */
  readonly userAgent: string | undefined;
}

export function toClient({ id, ip, headers }: Pick<Exchange, 'id' | 'ip' | 'headers'>): Client {
  const userAgent = headers['user-agent']?.replace(/[^\x20-\x7e]/g, '').slice(0, 255);
  return { requestId: id, ipKey: toIpKey(ip), userAgent: userAgent || undefined };
}
