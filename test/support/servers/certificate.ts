import { selfSigned } from '../../../src/commands/self-signed.js';

const { certificate, privateKey } = selfSigned(['localhost', '127.0.0.1', '::1'], Date.now());

/** A key and a certificate for this machine, made up once per process. PEM. */
export const throwaway = { key: privateKey, cert: certificate };
