import { until } from '../until.js';
import type { ServerProcess } from './server-process.js';

/** Options of Node that a process needs for `residentBytes`. */
export const residentOptions: readonly string[] = [
  ...['--expose-gc', '--import', import.meta.resolve('./memory-probe.mjs')],
  '--max-semi-space-size=2', // Otherwise the young generation grows, and stays resident when empty.
];

/** Measures resident memory after garbage collection. */
export async function residentBytes(server: ServerProcess): Promise<number> {
  const getReports = () => server.lines.filter(({ msg }) => msg === 'resident');
  const { length } = getReports();
  server.signal('SIGUSR2');
  await until(() => getReports().length > length);
  return Number(getReports()[length]?.['bytes']);
}
