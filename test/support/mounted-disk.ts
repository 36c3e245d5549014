import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

/**
 * Mounts a new ext4 file system of this size, from a file. It is unmounted after the test. When that is
 * impossible, returns the reason, as text for `skip`.
 */
export function mountDisk(t: TestContext, mebibytes: number): { readonly path: string } | string {
  if (process.getuid?.() !== 0) return 'only root can mount';
  const folder = mkdtempSync(join(tmpdir(), 'herald-disk-'));
  const [image, path] = [join(folder, 'image'), join(folder, 'disk')];
  const remove = () => {
    spawnSync('fsfreeze', ['-u', path]); // A test that failed may have left the file system frozen.
    spawnSync('umount', ['-l', path]); // Lazily, because a process may still have files open.
    rmSync(folder, { recursive: true, force: true });
  };
  t.after(remove);
  process.once('exit', remove);
  // A signal of the test runner ends a file that takes too long. Without a handler, `exit` is not emitted then.
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => process.exit(1));
  const script =
    'truncate -s "$1M" "$2" && mkfs.ext4 -q "$2" && mkdir "$3" && mount -o loop "$2" "$3"';
  const args = ['-c', script, 'sh', String(mebibytes), image, path];
  const { status, stderr } = spawnSync('sh', args, { encoding: 'utf8' });
  return status === 0 ? { path } : `cannot mount a file system: ${stderr.trim()}`;
}

/** Runs a program and returns whether it succeeded. */
export function tryRun(program: string, ...args: string[]): boolean {
  return spawnSync(program, args, { stdio: 'ignore' }).status === 0;
}
