import { checkServerIdentity, type PeerCertificate } from 'node:tls';
import type { ServerOptions } from './options.js';

export interface CheckedTls {
  readonly ca?: string;
  readonly checkServerIdentity: (name: string, certificate: PeerCertificate) => Error | undefined;
}

/**
 * What the packages hand to TLS. The certificate is checked against the host of the settings: by
 * themselves they check none, or for an address the name `localhost`.
 */
export function buildTlsOptions({ ssl, host }: ServerOptions): false | CheckedTls {
  if (ssl === false) return false;
  const checked: CheckedTls = {
    checkServerIdentity: (_name, certificate) => checkServerIdentity(host, certificate),
  };
  return ssl === true ? checked : { ...checked, ca: ssl.ca };
}
