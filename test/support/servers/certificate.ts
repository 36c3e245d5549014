import { selfSigned } from '../../../src/commands/self-signed.js';

const { certificate, privateKey } = selfSigned(['localhost', '127.0.0.1', '::1'], Date.now());

/** A key and a certificate for this machine, generated once per process. PEM. */
export const throwaway = { key: privateKey, cert: certificate };

/** The certificate authority that every client of the tests trusts. */
export const ca = certificate;
