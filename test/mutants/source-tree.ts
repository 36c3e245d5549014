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

/** How the named tests of one run ended. */
export interface TestRun {
  /** Names of those that ran: skipped ones and suites are not among them. */
  readonly passed: readonly string[];
  readonly failed: readonly string[];
  /** The process was stopped at the time limit. */
  readonly isTimedOut: boolean;
}

const runMsMax = 90_000;

/** A copy of the working tree in a temporary folder, in which a fault harms nobody. */
export class SourceTree {
  readonly #folder = mkdtempSync(join(tmpdir(), 'herald-mutants-'));
  readonly #endTest = new Set<() => void>();

  /** Copies what git tracks or would track. Throws an Error outside a git work tree. */
  constructor() {
    const options = ['ls-files', '-z', '--cached', '--others', '--exclude-standard'];
    const { stdout, status } = spawnSync('git', options, { cwd: root, encoding: 'utf8' });
    if (status !== 0) throw new Error('Cannot copy source tree: this is no git work tree');
    for (const file of new Set(stdout.split('\0'))) {
      const source = join(root, file);
      if (file !== '' && existsSync(source)) cpSync(source, join(this.#folder, file));
    }
    symlinkSync(join(root, 'node_modules'), join(this.#folder, 'node_modules'));
  }

  /** Runs `work` while the fault is in the tree. Throws as `applyMutant`. */
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

  /** Runs the tests of one file whose name contains `testName`. Never rejects. */
  runTest({ test, testName }: Pick<Mutant, 'test' | 'testName'>): Promise<TestRun> {
    const events = join(this.#folder, 'test-events');
    rmSync(events, { force: true });
    const args = [
      ...['--import', 'tsx', '--test', `--test-name-pattern=${escapePattern(testName)}`],
      ...['--test-reporter=./test/mutants/reporter.mjs', `--test-reporter-destination=${events}`],
      test,
    ];
    // A group of its own, with the processes that a test starts.
    const child = spawn(process.execPath, args, {
      cwd: this.#folder,
      env: environment(),
      stdio: 'ignore',
      detached: true,
    });
    return new Promise((resolve) => {
      let isTimedOut = false;
      const end = () => {
        if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, 'SIGKILL');
      };
      const deadline = setTimeout(() => {
        isTimedOut = true;
        end();
      }, runMsMax);
      this.#endTest.add(end);
      child.on('close', () => {
        clearTimeout(deadline);
        this.#endTest.delete(end);
        resolve({ ...outcomeIn(events, testName), isTimedOut });
      });
    });
  }

  /** Ends the test that is running and removes the folder. Idempotent. */
  remove(): void {
    for (const end of this.#endTest) end();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

function outcomeIn(events: string, testName: string): Pick<TestRun, 'passed' | 'failed'> {
  const text = existsSync(events) ? readFileSync(events, 'utf8') : '';
  const ended = text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as { name: string; hasPassed: boolean })
    // What fails before its tests begin has the name of the file.
    .filter(({ name }) => name.includes(testName));
  return {
    passed: ended.filter(({ hasPassed }) => hasPassed).map(({ name }) => name),
    failed: ended.filter(({ hasPassed }) => !hasPassed).map(({ name }) => name),
  };
}

/** Without what a test runner around this one would have set. */
function environment(): NodeJS.ProcessEnv {
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  return env;
}

function escapePattern(text: string): string {
  return text.replaceAll(/[\\^$.*+?()[\]{}|/]/g, '\\$&');
}
