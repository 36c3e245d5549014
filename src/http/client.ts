import type { Exchange } from './exchange.js';
import { toIpKey } from './ip-key.js';

/** A client, as rate limits, the session list and audit lines identify it. */
export interface Client {
  readonly requestId: string;
  /** The IP key (`toIpKey`) of the client's address. */
  readonly ipKey: string;
  /** At most 255 printable ASCII characters. */
  readonly userAgent: string | undefined;
}

export function toClient({ id, ip, headers }: Pick<Exchange, 'id' | 'ip' | 'headers'>): Client {
  const userAgent = headers['user-agent']?.replace(/[^\x20-\x7e]/g, '').slice(0, 255);
  return { requestId: id, ipKey: toIpKey(ip), userAgent: userAgent || undefined };
}
