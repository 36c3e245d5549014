import { createSelfSigned } from '../../../src/commands/self-signed.js';

const { certificate, privateKey } = createSelfSigned(['localhost', '127.0.0.1', '::1'], Date.now());

/** A private key and a certificate for this machine, PEM, generated once per process. */
export const testCertificate = { key: privateKey, cert: certificate };

/** The certificate authority that all test clients trust. */
export const ca = certificate;
