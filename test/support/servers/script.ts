import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { until } from '../until.js';
import { tempFolder } from './process.js';

const packages = fileURLToPath(new URL('../../../node_modules', import.meta.url));

/** Creates an empty folder whose scripts can import the packages of this repository; removed after the test. */
export function scriptFolder(t: TestContext): string {
  const folder = tempFolder(t);
  symlinkSync(packages, join(folder, 'node_modules'), 'dir');
  return folder;
}

/** A JavaScript module that runs in a Node process of its own. */
export class Script {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #name: string;
  #output = '';

  private constructor(child: ChildProcessWithoutNullStreams, name: string) {
    this.#child = child;
    this.#name = name;
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (chunk: string) => {
        this.#output += chunk;
      });
  }

  /** Writes a module to the folder and starts it there. Killed after the test. */
  static start(
    t: TestContext,
    { folder, name, source }: { folder: string; name: string; source: string },
    env: Readonly<Record<string, string>>,
  ): Script {
    writeFileSync(join(folder, name), source);
    const { PATH = '', HOME = '' } = process.env;
    const options = { cwd: folder, env: { PATH, HOME, ...env } };
    const child = spawn(process.execPath, [name], options);
    const closed = once(child, 'close');
    t.after(() => {
      child.kill('SIGKILL');
      return closed;
    });
    return new Script(child, name);
  }

  /** Standard output and standard error so far. */
  get output(): string {
    return this.#output;
  }

  /** Writes a line to standard input. */
  write(line: string): void {
    this.#child.stdin.write(`${line}\n`);
  }

  /** Settles when the output contains `text` this many times. Rejects when the process ends first. */
  async waitFor(text: string, times = 1): Promise<void> {
    const count = () => this.#output.split(text).length - 1;
    await until(() => {
      if (count() < times && this.#child.exitCode !== null)
        throw new Error(`${this.#name} ended before it printed ${text}: ${this.#output}`);
      return count() >= times;
    }).catch((error: Error) => {
      throw new Error(`${this.#name} did not print ${text}: ${this.#output}`, { cause: error });
    });
  }
}
