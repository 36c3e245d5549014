import { createSelfSigned } from '../../../src/commands/self-signed.js';

const { certificate, privateKey } = createSelfSigned(['localhost', '127.0.0.1', '::1'], Date.now());

/** A key and a certificate for this machine, generated once per process. PEM. */
export const testCertificate = { key: privateKey, cert: certificate };

/** The certificate authority that every client of the tests trusts. */
export const ca = certificate;
