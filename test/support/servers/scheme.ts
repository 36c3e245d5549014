/**
 * Whether test servers and their clients use TLS. A test file that runs without TLS sets `TEST_TLS=off` before
 * it imports this.
 */
export const usesTls = process.env['TEST_TLS'] !== 'off';

export const scheme = usesTls ? 'https' : 'http';

/**
 * Returns the rows of a table of requests whose outcome depends only on the bytes that a parser reads: without TLS
 * only the first rows, because the parsers are the same ones.
 */
export function withTlsAll<Row>(rows: readonly Row[], countWithoutTls = 1): readonly Row[] {
  return usesTls ? rows : rows.slice(0, countWithoutTls);
}
