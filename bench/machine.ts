import { spawnSync } from 'node:child_process';
import { availableParallelism, cpus } from 'node:os';
import { fileURLToPath } from 'node:url';

/** The folder of the repository. */
export const repository = fileURLToPath(new URL('..', import.meta.url));

/** Machine and runtime, recorded with every figure because figures are not portable. */
export const machine = {
  node: process.version,
  cpu: `${cpus()[0]?.model ?? 'unknown'} x ${availableParallelism()}`,
};

const canPin = availableParallelism() > 1 && has('taskset');

/** The core to pin a process to. `all` instead of `undefined`, which would mean the default. */
export type Core = number | 'all';

/** Cores of servers and load: different ones, so that they do not compete. */
export const serverCore: Core = canPin ? 0 : 'all';
export const loadCore: Core = canPin ? 1 : 'all';

/** Returns whether a program is installed. */
export function has(program: string): boolean {
  return spawnSync('which', [program]).status === 0;
}
