import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { recordLines, recordLogFilesIn, recordSecret } from '../recording/record.js';
import { withDeadline } from '../with-deadline.js';

/** Longer than a busy machine needs for the slowest of the processes that tests wait for. */
const exitMsMax = 120_000;

/** The folder that has `src`: this repository, or its build if the test runner has made one (`test/runner/build.mjs`). */
export const sourceRoot =
  process.env['HERALD_TEST_BUILD'] ?? fileURLToPath(new URL('../../..', import.meta.url));

export interface Outcome {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

export interface ProcessOptions {
  readonly cwd: string;
  /** Added to `PATH` and `HOME`; nothing else is inherited, so that no setting leaks in. */
  readonly env?: Readonly<Record<string, string>>;
  /** Standard input of the process; empty by default. */
  readonly input?: string;
  /** The folder that has `src`; `sourceRoot` by default. */
  readonly root?: string;
}

/** Creates an empty folder. After the test the log files in it are recorded, and it is removed. */
export function tempFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'herald-'));
  t.after(() => {
    recordLogFilesIn(folder);
    rmSync(folder, { recursive: true, force: true });
  });
  return folder;
}

/** Starts a file of `src`, such as `commands/user.ts`, from source as a child process. */
export function startSource(
  file: string,
  args: readonly string[],
  { cwd, env = {}, root }: ProcessOptions,
): ChildProcessWithoutNullStreams {
  const [command, ...rest] = sourceCommand(file, args, root);
  return spawn(command, rest, { cwd, env: { ...getInheritedEnv(), ...env } });
}

/** Runs a file of `src` from source as a child process until it ends. */
export function runSource(
  file: string,
  args: readonly string[],
  options: ProcessOptions,
): Promise<Outcome> {
  const child = startSource(file, args, options);
  child.stdin.on('error', () => {}); // The process may end without reading its input.
  recordSecret(options.input ?? ''); // Input consists of passwords.
  child.stdin.end(options.input ?? '');
  return waitForExit(child);
}

/** Returns the command line that runs a file of `src`, compiled or from source, in any working directory. */
export function sourceCommand(
  file: string,
  args: readonly string[],
  root: string = sourceRoot,
): [string, ...string[]] {
  const path = join(root, 'src', file);
  const compiled = path.replace(/\.ts$/, '.js');
  if (existsSync(compiled)) return [process.execPath, compiled, ...args];
  return [process.execPath, '--import', import.meta.resolve('tsx'), path, ...args];
}

/** Settles when the process has ended and its output is complete. Kills it after two minutes, and rejects. */
export async function waitForExit(child: ChildProcessWithoutNullStreams): Promise<Outcome> {
  const [out, err]: [string[], string[]] = [[], []];
  child.stdout.setEncoding('utf8').on('data', (chunk) => out.push(chunk));
  child.stderr.setEncoding('utf8').on('data', (chunk) => err.push(chunk));
  const exited = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject).once('close', resolve);
  });
  const missing = () => `the exit of ${child.spawnargs.join(' ')}: ${[...out, ...err].join('')}`;
  const code = await withDeadline(exited, missing, exitMsMax).catch((error: unknown) => {
    child.kill('SIGKILL');
    throw error;
  });
  // Only log lines are recorded, because other output may show a secret on purpose, such as a new key.
  const logged = out
    .join('')
    .split('\n')
    .filter((line) => line.startsWith('{"level":'));
  recordLines(logged.join('\n'));
  return { code, out: out.join(''), err: err.join('') };
}

function getInheritedEnv(): Record<string, string> {
  const { PATH = '', HOME = '' } = process.env;
  return { PATH, HOME };
}
