/**
 * Whether test servers and their clients use TLS. A test file that runs without TLS sets `TEST_TLS=off` before
 * it imports this.
 */
export const usesTls = process.env['TEST_TLS'] !== 'off';

export const scheme = usesTls ? 'https' : 'http';
