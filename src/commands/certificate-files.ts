import { X509Certificate } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { createSelfSigned } from './self-signed.js';

export interface CertificateFiles {
  readonly certificateFile: string;
  readonly privateKeyFile: string;
}

export const localHosts: readonly string[] = ['localhost', '127.0.0.1', '::1'];

/** Those of the two files that are there. */
export function listExisting({ certificateFile, privateKeyFile }: CertificateFiles): string[] {
  return [certificateFile, privateKeyFile].filter((file) => existsSync(file));
}

/**
 * Makes a certificate for these hosts and writes both files, in the place of what was there; the
 * key can be read by its owner only. Each file is either the old or the new one, never half.
 * Throws an Error that names the file that cannot be written.
 */
export function writeCertificate(
  { certificateFile, privateKeyFile }: CertificateFiles,
  hosts: readonly string[],
): X509Certificate {
  const { certificate, privateKey } = createSelfSigned(hosts, Date.now());
  replaceFile(privateKeyFile, privateKey, 0o600);
  replaceFile(certificateFile, certificate, 0o644);
  return new X509Certificate(certificate);
}

/** Writes a file in one step: whoever reads it sees the old content or the new. */
export function replaceFile(path: string, content: string, mode: number): void {
  const temporary = `${path}.new`;
  try {
    mkdirSync(dirname(path), { recursive: true });
    rmSync(temporary, { force: true });
    writeFileSync(temporary, content, { mode, flag: 'wx' });
    chmodSync(temporary, mode); // The mode above is subject to the umask.
    renameSync(temporary, path);
  } catch (cause) {
    throw new Error(`Cannot write ${path}`, { cause });
  }
}
