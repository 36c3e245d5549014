import { spawnSync } from 'node:child_process';
import { availableParallelism, cpus } from 'node:os';
import { fileURLToPath } from 'node:url';

/** The folder of the repository. */
export const repository = fileURLToPath(new URL('..', import.meta.url));

/** What every figure names, for numbers of another machine are other numbers. */
export const machine = {
  node: process.version,
  cpu: `${cpus()[0]?.model ?? 'unknown'} x ${availableParallelism()}`,
};

const canPin = availableParallelism() > 1 && has('taskset');

/** Where a process runs. A word and not `undefined`, which would mean the default. */
export type Core = number | 'all';

/** Servers on one core, load on another, so that neither takes time from the other. */
export const serverCore: Core = canPin ? 0 : 'all';
export const loadCore: Core = canPin ? 1 : 'all';

/** Whether a program is installed. */
export function has(program: string): boolean {
  return spawnSync('which', [program]).status === 0;
}
