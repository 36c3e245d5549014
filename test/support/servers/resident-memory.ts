import { until } from '../until.js';
import type { ServerProcess } from './server-process.js';

/** Before the program of a process that is asked by `residentBytes`. */
export const residentOptions: readonly string[] = [
  ...['--expose-gc', '--import', import.meta.resolve('./memory-probe.mjs')],
  '--max-semi-space-size=2', // Or the space for young garbage is grown, and resident without any in it.
];

/** Resident memory without garbage. */
export async function residentBytes(server: ServerProcess): Promise<number> {
  const getReports = () => server.lines.filter(({ msg }) => msg === 'resident');
  const { length } = getReports();
  server.signal('SIGUSR2');
  await until(() => getReports().length > length);
  return Number(getReports()[length]?.['bytes']);
}
