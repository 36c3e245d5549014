import { X509Certificate } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { createSelfSigned } from './self-signed.js';

export interface CertificateFiles {
  readonly certificateFile: string;
  readonly privateKeyFile: string;
}

export const localHosts: readonly string[] = ['localhost', '127.0.0.1', '::1'];

/** Returns those of the two files that exist. */
export function listExisting({ certificateFile, privateKeyFile }: CertificateFiles): string[] {
  return [certificateFile, privateKeyFile].filter((file) => existsSync(file));
}

/**
 * Creates a certificate for these hosts and replaces both files. The key is readable by its owner
 * only. Each file is replaced atomically. Throws an Error that names the file that cannot be
 * written.
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

/** Replaces a file atomically: readers see the old content or the new. */
export function replaceFile(path: string, content: string, mode: number): void {
  const temporary = `${path}.new`;
  try {
    mkdirSync(dirname(path), { recursive: true });
    rmSync(temporary, { force: true });
    writeFileSync(temporary, content, { mode, flag: 'wx' });
    chmodSync(temporary, mode); // Because `writeFileSync` clears the bits of the umask.
    renameSync(temporary, path);
  } catch (cause) {
    throw new Error(`Cannot write ${path}`, { cause });
  }
}
