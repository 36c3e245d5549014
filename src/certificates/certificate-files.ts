import { createPrivateKey, X509Certificate } from 'node:crypto';
import { chmodSync, existsSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { createSecureContext } from 'node:tls';
import { createFolder } from '../create-folder.js';
import { createSelfSigned, listHosts } from './self-signed.js';

export interface CertificateFiles {
  readonly certificateFile: string;
  readonly privateKeyFile: string;
}

/** A private key and a certificate chain, in PEM. */
export interface Certificate {
  readonly key: Buffer;
  readonly cert: Buffer;
}

export const localHosts: readonly string[] = ['localhost', '127.0.0.1', '::1'];

/** Returns the paths of the files that exist: none, one or both. */
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

/**
 * Replaces a generated certificate by a new one for the same hosts and the same key, created at `nowMs`. Writes
 * only one file, so processes that share the files cannot leave a certificate that does not match the key.
 */
export function renewCertificate(
  { certificateFile }: CertificateFiles,
  { key, cert }: Certificate,
  nowMs: number,
): void {
  const hosts = listHosts(new X509Certificate(cert));
  const { certificate } = createSelfSigned(hosts, nowMs, createPrivateKey(key));
  replaceFile(certificateFile, certificate, 0o644);
}

/**
 * Reads certificate and key. Rejects with an Error that names the files if one cannot be read or they do not
 * match.
 */
export async function readCertificate(files: CertificateFiles): Promise<Certificate> {
  const { privateKeyFile, certificateFile } = files;
  const [key, cert] = await Promise.all([readPem(privateKeyFile), readPem(certificateFile)]);
  try {
    createSecureContext({ key, cert });
  } catch (cause) {
    const names = `${certificateFile} and ${privateKeyFile}`;
    throw new Error(`Cannot use certificate: ${names} are not a matching PEM certificate and key`, {
      cause,
    });
  }
  return { key, cert };
}

async function readPem(file: string): Promise<Buffer> {
  try {
    return await readFile(file);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new Error(`Cannot read ${file} (${code}): check CERTIFICATE and PRIVATE_KEY`, { cause });
  }
}

/** Replaces a file atomically: readers see the old content or the new. */
export function replaceFile(path: string, content: string, mode: number): void {
  const temporary = `${path}.new`;
  try {
    createFolder(dirname(path));
    rmSync(temporary, { force: true });
    writeFileSync(temporary, content, { mode, flag: 'wx' });
    chmodSync(temporary, mode); // Needed because `writeFileSync` applies the umask.
    renameSync(temporary, path);
  } catch (cause) {
    throw new Error(`Cannot write ${path}`, { cause });
  }
}
