import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { repositoryFolder } from '../machine.js';

/** A built Herald: a folder with the layout of the repository and with `dist/`. */
export interface Build {
  readonly name: string;
  readonly folder: string;
}

/** The build of a commit in a temporary worktree. */
export interface RefBuild extends Build {
  /** Adds the worktree and builds it. Throws `BuildError`. */
  make(): void;
  /** Removes the worktree. Idempotent; may be called before `make`. */
  remove(): void;
}

/** Thrown when a git ref does not exist or a build fails. The benchmark prints its message, not its stack. */
export class BuildError extends Error {
  override readonly name = 'BuildError';
}

/** The working tree, with uncommitted changes. */
export const treeBuild: Build = { name: 'this tree', folder: repositoryFolder };

/** Files that a build of a ref must contain, because measurements run them. */
const requiredFiles = ['dist/server.js', 'dist/commands/sync.js', 'dist/commands/key.js'];

/** Builds the working tree. Throws `BuildError`. */
export function buildTree(): void {
  run(repositoryFolder, 'the working tree does not build', 'npm', ['run', '--silent', 'build']);
}

/** Returns the commit that a git ref refers to. Throws `BuildError` when there is none. */
export function resolveRef(ref: string): string {
  const args = ['rev-parse', '--verify', '--quiet', '--end-of-options', `${ref}^{commit}`];
  const { status, stdout } = spawnSync('git', args, { cwd: repositoryFolder, encoding: 'utf8' });
  if (status !== 0) throw new BuildError(`Cannot compare: there is no commit '${ref}'`);
  return stdout.trim();
}

/**
 * Returns the build of a commit. Call `make` before measuring it. The build uses the packages of the
 * working tree if the lock files are equal. Otherwise `make` installs the packages of the commit.
 */
export function createRefBuild(name: string, commit: string): RefBuild {
  const parent = mkdtempSync(join(tmpdir(), 'herald-bench-ref-'));
  const folder = join(parent, 'tree');
  const remove = () => {
    spawnSync('git', ['worktree', 'remove', '--force', folder], { cwd: repositoryFolder });
    rmSync(parent, { recursive: true, force: true });
  };
  const make = () => {
    const addArgs = ['worktree', 'add', '--quiet', '--detach', folder, commit];
    run(repositoryFolder, `git cannot create a worktree of ${name}`, 'git', addArgs);
    const readLock = (path: string) => readFileSync(join(path, 'package-lock.json'), 'utf8');
    if (readLock(folder) === readLock(repositoryFolder)) {
      symlinkSync(join(repositoryFolder, 'node_modules'), join(folder, 'node_modules'));
    } else {
      const installArgs = ['ci', '--no-audit', '--no-fund'];
      run(folder, `the packages of ${name} cannot be installed`, 'npm', installArgs);
    }
    run(folder, `${name} does not build`, 'npm', ['run', '--silent', 'build']);
    const missing = requiredFiles.find((file) => !existsSync(join(folder, file)));
    if (missing !== undefined) {
      throw new BuildError(`Cannot compare: ${name} is too old, it has no ${missing}`);
    }
  };
  return { name, folder, make, remove };
}

/**
 * Runs a program with its output on standard error, because standard output is for the table. Throws
 * `BuildError` with `problem` if the program fails.
 */
function run(cwd: string, problem: string, program: string, args: readonly string[]): void {
  const { status, signal, error } = spawnSync(program, args, { cwd, stdio: ['ignore', 2, 2] });
  if (status !== 0) {
    const ending = error?.message ?? signal ?? `exit code ${status}`;
    throw new BuildError(`Cannot measure: ${problem} (${program} ${args[0]}: ${ending})`);
  }
}
