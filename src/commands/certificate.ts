import { listExisting, localHosts, writeCertificate } from '../certificates/certificate-files.js';
import { CommandError, parseArguments, print, readConfig, runCommand } from './command.js';

const usage = `Creates a private key and a certificate for development, at the paths of PRIVATE_KEY and CERTIFICATE.

Usage: npm run certificate -- [options]

  --host <name>   a host name or IP address of the certificate; repeatable
                  (default: ${localHosts.join(', ')})
  --force         replace both files`;

await runCommand(usage, async (args) => {
  const { values } = parseArguments(args, {
    host: { type: 'string', multiple: true },
    force: { type: 'boolean' },
  });
  const files = readConfig().http;
  const existing = listExisting(files);
  if (existing.length > 0 && values.force !== true) {
    const names = existing.join(' and ');
    throw new CommandError(`Cannot make certificate: files exist: ${names}; --force replaces both`);
  }
  const hosts = values.host ?? localHosts;
  const certificate = writeCertificate(files, hosts);
  const { certificateFile, privateKeyFile } = files;
  print(`Certificate  ${certificateFile}, for ${hosts.join(', ')}, until ${certificate.validTo}`);
  print(`Private key  ${privateKeyFile}`);
  print(`SHA-256      ${certificate.fingerprint256}`);
  print(`\nTo trust it:\n${formatTrustInstructions(certificateFile)}`);
});

/**
 * Returns instructions for trusting the certificate. Those for the system's certificate store are last,
 * because they are seldom needed. Browsers have stores of their own: see `certificate/README.md`.
 */
function formatTrustInstructions(file: string): string {
  return [
    `  curl          curl --cacert ${file} …`,
    `  Node          NODE_EXTRA_CA_CERTS=${file} node …`,
    `  system store  ${getSystemCommand(file)}`,
  ].join('\n');
}

function getSystemCommand(file: string): string {
  if (process.platform === 'darwin') {
    const keychain = '/Library/Keychains/System.keychain';
    return `sudo security add-trusted-cert -d -r trustRoot -k ${keychain} ${file}`;
  }
  if (process.platform === 'win32') return `certutil -addstore -f Root ${file}`;
  const store = '/usr/local/share/ca-certificates';
  return `sudo cp ${file} ${store}/herald.crt && sudo update-ca-certificates`;
}
