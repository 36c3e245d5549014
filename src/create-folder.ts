import { mkdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';

/**
 * Creates a folder and its missing parents, unless it exists. Throws the error of the file system.
 *
 * Does not use `mkdirSync` with `recursive`, which never returns for a folder in `/proc`: the system refuses
 * the folder with ENOENT, and each time Node takes that for a missing parent.
 */
export function createFolder(path: string, mode = 0o777): void {
  try {
    mkdirSync(path, mode);
  } catch (cause) {
    if (isFolder(path)) return;
    const parent = dirname(path);
    const { code } = cause as NodeJS.ErrnoException;
    if (code !== 'ENOENT' || isFolder(parent)) throw cause;
    createFolder(parent, mode);
    createFolder(path, mode);
  }
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}
