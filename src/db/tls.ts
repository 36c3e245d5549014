import { checkServerIdentity, type PeerCertificate } from 'node:tls';
import type { DatabaseServerOptions } from './options.js';
import { getCurrentText } from './rotated-file.js';

export interface TlsOptions {
  readonly ca?: string;
  readonly checkServerIdentity: (name: string, certificate: PeerCertificate) => Error | undefined;
}

/** Returns whether an error with this code means that TLS failed, for example because of the certificate. */
export function isTlsError(code: string): boolean {
  return /CERT|TLS|SSL|SELF_SIGNED|^UNABLE_TO_/.test(code);
}

/**
 * Returns the TLS options for the driver packages, which read them again for each connection. The certificate
 * is checked against the configured host, because by default the packages check no name, or `localhost` when
 * the host is an IP address.
 */
export function buildTlsOptions({ ssl, host }: DatabaseServerOptions): false | TlsOptions {
  if (ssl === false) return false;
  const checked: TlsOptions = {
    checkServerIdentity: (_name, certificate) => checkServerIdentity(host, certificate),
  };
  if (ssl === true) return checked;
  return {
    ...checked,
    get ca() {
      return getCurrentText(ssl.ca);
    },
  };
}
