import { spawn, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { applyMutant, type Mutant, root } from './mutants.js';

/** Results of the selected tests of one file. */
export interface TestRun {
  /** Names of the tests that passed. Skipped tests and suites are left out. */
  readonly passed: readonly string[];
  readonly failed: readonly string[];
  /** Whether the process was killed at the time limit. */
  readonly isTimedOut: boolean;
}

const msMaxPerName = 90_000;

/** A copy of the working tree in a temporary folder, to apply faults to. */
export class SourceTree {
  readonly #folder = mkdtempSync(join(tmpdir(), 'herald-mutants-'));
  readonly #killers = new Set<() => void>();

  /** Copies all files that git does not ignore. Throws an Error outside a git work tree. */
  constructor() {
    const options = ['ls-files', '-z', '--cached', '--others', '--exclude-standard'];
    const { stdout, status } = spawnSync('git', options, { cwd: root, encoding: 'utf8' });
    if (status !== 0) throw new Error('Cannot copy source tree: not in a git work tree');
    for (const file of new Set(stdout.split('\0'))) {
      const source = join(root, file);
      if (file !== '' && existsSync(source)) cpSync(source, join(this.#folder, file));
    }
    symlinkSync(join(root, 'node_modules'), join(this.#folder, 'node_modules'));
  }

  /** Runs `work` with the fault applied to the tree. Throws as `applyMutant` does. */
  async withMutant<Result>(mutant: Mutant, work: () => Promise<Result>): Promise<Result> {
    const path = join(this.#folder, mutant.file);
    const original = readFileSync(path, 'utf8');
    writeFileSync(path, applyMutant(mutant, original));
    try {
      return await work();
    } finally {
      writeFileSync(path, original);
    }
  }

  /**
   * Runs the tests of one file that have one of these texts in their name, for at most 90 s per text. Never
   * rejects.
   */
  runTests(file: string, testNames: readonly string[]): Promise<TestRun> {
    const events = join(this.#folder, 'test-events');
    rmSync(events, { force: true });
    const args = [
      ...['--import', 'tsx'], // Without `--test`, which would only add a process.
      ...testNames.map((name) => `--test-name-pattern=${escapePattern(name)}`),
      ...['--test-reporter=./test/mutants/reporter.mjs', `--test-reporter-destination=${events}`],
      file,
    ];
    // In a new process group, so that `kill` also ends the processes that a test starts.
    const child = spawn(process.execPath, args, {
      cwd: this.#folder,
      env: getEnvironment(),
      stdio: 'ignore',
      detached: true,
    });
    return new Promise((resolve) => {
      let isTimedOut = false;
      const kill = () => {
        if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, 'SIGKILL');
      };
      const deadline = setTimeout(() => {
        isTimedOut = true;
        kill();
      }, msMaxPerName * testNames.length);
      this.#killers.add(kill);
      child.on('close', () => {
        clearTimeout(deadline);
        this.#killers.delete(kill);
        resolve(selectTests({ ...readResults(events), isTimedOut }, testNames));
      });
    });
  }

  /** Kills a running test and removes the folder. Idempotent. */
  remove(): void {
    for (const kill of this.#killers) kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** Returns the results of the tests that have one of these texts in their name. */
export function selectTests(run: TestRun, testNames: readonly string[]): TestRun {
  // A file that fails before its tests start is reported under its own name.
  const isSelected = (name: string) => testNames.some((text) => name.includes(text));
  return { ...run, passed: run.passed.filter(isSelected), failed: run.failed.filter(isSelected) };
}

function readResults(events: string): Pick<TestRun, 'passed' | 'failed'> {
  const text = existsSync(events) ? readFileSync(events, 'utf8') : '';
  const results = text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as { name: string; hasPassed: boolean });
  return {
    passed: results.filter(({ hasPassed }) => hasPassed).map(({ name }) => name),
    failed: results.filter(({ hasPassed }) => !hasPassed).map(({ name }) => name),
  };
}

/** Returns the environment without the variables that an enclosing test runner sets. */
function getEnvironment(): NodeJS.ProcessEnv {
  const { NODE_TEST_CONTEXT: _, HERALD_TEST_BUILD: __, ...env } = process.env;
  return env;
}

function escapePattern(text: string): string {
  return text.replaceAll(/[\\^$.*+?()[\]{}|/]/g, '\\$&');
}
