import { spawnSync } from 'node:child_process';
import { availableParallelism, cpus } from 'node:os';
import { fileURLToPath } from 'node:url';

/** Path of the repository. */
export const repositoryFolder = fileURLToPath(new URL('..', import.meta.url));

/** Machine and runtime. Recorded with every figure, because figures of other machines differ. */
export const machine = {
  node: process.version,
  cpu: `${cpus()[0]?.model ?? 'unknown'} x ${availableParallelism()}`,
};

const canPin = availableParallelism() > 1 && isInstalled('taskset');

/** The core to pin a process to, or `all` to leave it unpinned. */
export type Core = number | 'all';

/** Servers and load generators run on different cores, so that they do not compete. */
export const serverCore: Core = canPin ? 0 : 'all';
export const loadCore: Core = canPin ? 1 : 'all';

/** Returns whether a program is installed. */
export function isInstalled(program: string): boolean {
  return spawnSync('which', [program]).status === 0;
}
