import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';
import { getNativeComponent } from './native-component.js';

/** Number of samples of each component (`getNativeComponent`). */
export type NativeCounts = Readonly<Record<string, number>>;

const run = promisify(execFile);
const startMsMax = 5000;

/** A `perf` recording of all threads of a process, including C++ and the kernel. */
export class Perf {
  readonly #process: ChildProcess;
  readonly #folder: string;

  private constructor(child: ChildProcess, folder: string) {
    this.#process = child;
    this.#folder = folder;
  }

  /** Starts to record: a thousand samples per second of CPU time. */
  static async start(pid: number): Promise<Perf> {
    const folder = mkdtempSync(join(tmpdir(), 'herald-bench-perf-'));
    const file = join(folder, 'data');
    const args = ['record', '-q', '-e', 'cpu-clock', '-F', '1000', '-p', String(pid), '-o', file];
    const child = spawn('perf', args, { stdio: 'ignore' });
    const deadline = Date.now() + startMsMax;
    while (!existsSync(file) && child.exitCode === null && Date.now() < deadline) await pause(5);
    return new Perf(child, folder);
  }

  /**
   * Ends the recording and returns its counts, without V8's profiler thread. The counts are empty if
   * `perf` has no permission.
   */
  async stop(): Promise<NativeCounts> {
    if (this.#process.exitCode === null) {
      const exit = once(this.#process, 'exit');
      this.#process.kill('SIGINT');
      await exit;
    }
    const args = ['script', '-i', join(this.#folder, 'data'), '-F', 'comm,ip,sym,dso'];
    const { stdout } = await run('perf', args, { maxBuffer: 2 ** 28 }).catch(() => ({
      stdout: '',
    }));
    rmSync(this.#folder, { recursive: true, force: true });
    return parseCounts(stdout);
  }
}

/** Counts lines such as `   sqlite-writer   7f03a2 uv__read (/usr/bin/node)`. */
export function parseCounts(script: string): NativeCounts {
  const counts: Record<string, number> = {};
  for (const line of script.split('\n')) {
    const match = /^\s*(.+?)\s+[0-9a-f]{3,} (.*) \((.*)\)$/.exec(line);
    const [, thread = '', symbol = '', file = ''] = match ?? [];
    if (match === null || thread.startsWith('v8:Prof')) continue;
    const name = getNativeComponent(symbol, file);
    counts[name] = (counts[name] ?? 0) + 1;
  }
  return counts;
}
