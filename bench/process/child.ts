import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Core } from '../machine.js';

export interface ChildOptions {
  /** Arguments of `node`, including the script; a `.ts` file is run with `tsx`. */
  readonly args: readonly string[];
  /** Environment, in addition to `PATH` and `HOME` of this process. */
  readonly env?: Readonly<Record<string, string>>;
  /** Default: a new temporary folder. */
  readonly cwd?: string;
  /** Pins the process to a core. Default `all`. */
  readonly core?: Core;
  /** Matches the output once the process is ready. The first group, if any, is its port. */
  readonly readyPattern: RegExp;
}

export interface Usage {
  readonly cpuMicros: number;
  readonly rssBytes: number;
  readonly heapBytes: number;
}

/** A process whose resource usage can be read. */
export interface MeasurableServer {
  usage(): Promise<Usage>;
  stop(): Promise<void>;
}

/** Event loop delay: percentiles and maximum. */
export interface LoopDelay {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** A node of V8's call tree: a function as called by the parent node. */
export interface CallNode {
  readonly id: number;
  readonly callFrame: {
    readonly functionName: string;
    /** Empty for native code. */
    readonly url: string;
    /** Counted from 0. */
    readonly lineNumber: number;
  };
  /** Samples with this node on top of the stack. */
  readonly hitCount: number;
  readonly children?: readonly number[];
}

interface ChildReply {
  readonly id: number;
  readonly answer?: unknown;
  readonly error?: string;
}

/** Module that every child process loads. It answers all requests of `Child` except `ask`. */
const probe = fileURLToPath(new URL('./probe.mjs', import.meta.url));
/** Maximum time from the start of a process to the match of `readyPattern`. */
const startMsMax = 60_000;

/** A Node process: a measured server or a load generator. Its output is written to a file. */
export class Child implements MeasurableServer {
  readonly #process: ChildProcess;
  readonly #folder: string;
  readonly #pending = new Map<number, (reply: ChildReply) => void>();
  #lastId = 0;
  #port = 0;

  private constructor(child: ChildProcess, folder: string) {
    this.#process = child;
    this.#folder = folder;
    child.on('message', (message: ChildReply) => {
      this.#pending.get(message.id)?.(message);
      this.#pending.delete(message.id);
    });
    child.once('exit', (code) => {
      const error = `process ended with ${code}: ${this.output().slice(-500)}`;
      for (const [id, settle] of this.#pending) settle({ id, error });
      this.#pending.clear();
    });
  }

  /**
   * Starts a process and waits until its output matches `readyPattern`. Rejects with the output when
   * the process ends first or a minute has passed.
   */
  static async start(options: ChildOptions): Promise<Child> {
    const folder = mkdtempSync(join(tmpdir(), 'herald-bench-child-'));
    const out = openSync(join(folder, 'output'), 'a');
    const { args, env = {}, cwd = folder, core = 'all' } = options;
    const needsTsx = args.some((arg) => arg.endsWith('.ts'));
    const loader = needsTsx ? ['--import', import.meta.resolve('tsx')] : [];
    const command = [process.execPath, '--expose-gc', '--import', probe, ...loader, ...args];
    const pinned = core === 'all' ? command : ['taskset', '-c', String(core), ...command];
    const [program = '', ...programArgs] = pinned;
    const { PATH = '', HOME = '' } = process.env;
    const child = spawn(program, programArgs, {
      cwd,
      env: { PATH, HOME, ...env },
      stdio: ['ignore', out, out, 'ipc'],
    });
    closeSync(out);
    const startedChild = new Child(child, folder);
    await startedChild.#waitUntilReady(options.readyPattern);
    return startedChild;
  }

  get pid(): number {
    return this.#process.pid ?? 0;
  }

  /** The port on which the process listens; 0 if `readyPattern` found none. */
  get port(): number {
    return this.#port;
  }

  output(): string {
    return readFileSync(join(this.#folder, 'output'), 'utf8');
  }

  usage(): Promise<Usage> {
    return this.#send({ probe: 'usage' }) as Promise<Usage>;
  }

  async collectGarbage(): Promise<void> {
    await this.#send({ probe: 'collect' });
  }

  async startDelayMonitor(): Promise<void> {
    await this.#send({ probe: 'startDelayMonitor' });
  }

  /** Returns the event loop delay since `startDelayMonitor`. */
  stopDelayMonitor(): Promise<LoopDelay> {
    return this.#send({ probe: 'stopDelayMonitor' }) as Promise<LoopDelay>;
  }

  async startProfile(): Promise<void> {
    await this.#send({ probe: 'startProfile' });
  }

  /** Returns the call tree of the main thread since `startProfile`, root first. */
  stopProfile(): Promise<readonly CallNode[]> {
    return this.#send({ probe: 'stopProfile' }) as Promise<readonly CallNode[]>;
  }

  /** Waits until the process uses less than 20 ms of CPU in 250 ms. */
  async waitUntilIdle(): Promise<void> {
    // -1 until the usage was read once.
    for (let lastCpuMicros = -1; ; ) {
      const { cpuMicros } = await this.usage();
      if (lastCpuMicros >= 0 && cpuMicros - lastCpuMicros < 20_000) return;
      lastCpuMicros = cpuMicros;
      await pause(250);
    }
  }

  /** Calls a handler that the process passed to `handleRequests`, and returns its result. */
  ask(handlerName: string, argument: unknown = null): Promise<unknown> {
    return this.#send({ ask: handlerName, argument });
  }

  /** Ends the process with `SIGTERM`, and with `SIGKILL` after ten seconds. */
  async stop(): Promise<void> {
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      const exit = once(this.#process, 'exit');
      this.#process.kill('SIGTERM');
      const killTimer = setTimeout(() => this.#process.kill('SIGKILL'), 10_000);
      await exit;
      clearTimeout(killTimer);
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #send(request: object): Promise<unknown> {
    this.#lastId += 1;
    const id = this.#lastId;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, ({ answer, error }) => {
        if (error === undefined) resolve(answer);
        else reject(new Error(error));
      });
      this.#process.send({ id, ...request }, (error) => {
        if (error) reject(error);
      });
    });
  }

  async #waitUntilReady(pattern: RegExp): Promise<void> {
    const deadline = Date.now() + startMsMax;
    while (Date.now() < deadline && this.#process.exitCode === null) {
      const match = pattern.exec(this.output());
      if (match !== null) {
        this.#port = Number(match[1] ?? 0);
        return;
      }
      await pause(5);
    }
    const output = this.output();
    await this.stop();
    const command = this.#process.spawnargs.join(' ');
    throw new Error(`Cannot start '${command}': its output did not match ${pattern}\n${output}`);
  }
}
