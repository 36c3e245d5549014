import { fileURLToPath } from 'node:url';
import type { Core } from '../machine.js';
import { Child } from './child.js';

/** Starts a reference: a script of `references/`, whose cost is compared with that of Herald. */
export function startReference(
  file: string,
  {
    folder,
    core = 'all',
    env = {},
  }: { folder: string; core?: Core; env?: Readonly<Record<string, string>> },
): Promise<Child> {
  return Child.start({
    args: [fileURLToPath(new URL(`../references/${file}`, import.meta.url))],
    env: { FOLDER: folder, ...env },
    core,
    readyPattern: /https:\/\/127.0.0.1:(\d+)|ready/,
  });
}
