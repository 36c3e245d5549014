import { until } from '../until.js';
import type { ServerProcess } from './server-process.js';

/** Options of Node that the server process needs for `measureResidentBytes`. */
export const residentOptions: readonly string[] = [
  ...['--expose-gc', '--import', import.meta.resolve('./memory-probe.mjs')],
  '--max-semi-space-size=2', // Otherwise the young generation grows, and its empty pages stay resident.
];

/** Makes the server collect its garbage, and returns its resident memory. */
export async function measureResidentBytes(server: ServerProcess): Promise<number> {
  const getReports = () => server.lines.filter(({ msg }) => msg === 'resident');
  const { length } = getReports();
  server.signal('SIGUSR2');
  await until(() => getReports().length > length);
  return Number(getReports()[length]?.['bytes']);
}
