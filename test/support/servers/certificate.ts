import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createSelfSigned } from '../../../src/certificates/self-signed.js';

const { certificate, privateKey } = createSelfSigned(['localhost', '127.0.0.1', '::1'], Date.now());

/** A private key and a certificate for this machine, PEM, generated once per process. */
export const testCertificate = { key: privateKey, cert: certificate };

/** The certificate authority that all test clients trust. */
export const ca = certificate;

export interface OpensslOptions {
  readonly key?: 'EC' | 'RSA';
  /** Validity from now on. */
  readonly days?: number;
}

/** Creates a certificate for localhost with openssl, like one that an operator provides. PEM. */
export function createByOpenssl({ key = 'EC', days = 365 }: OpensslOptions = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'herald-openssl-'));
  const [keyFile, certFile] = [join(folder, 'key'), join(folder, 'cert')];
  try {
    execFileSync('openssl', [
      ...['req', '-x509', '-nodes', '-subj', '/CN=localhost', '-days', String(days)],
      ...(key === 'RSA'
        ? ['-newkey', 'rsa:2048']
        : ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256']),
      ...['-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'],
      ...['-keyout', keyFile, '-out', certFile],
    ]);
    return { key: readFileSync(keyFile, 'utf8'), cert: readFileSync(certFile, 'utf8') };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
