import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { recordLines } from '../recording/record.js';
import { sourceCommand } from './process.js';
import type { Env } from './seed.js';

/** A log line, as an operator's tools read it. */
export type LogLine = Readonly<Record<string, unknown>>;

export interface LaunchOptions {
  /** All of its environment beside `PATH` and `HOME`. */
  readonly env: Env;
  readonly cwd: string;
  /** Before the program. */
  readonly nodeOptions?: readonly string[];
  /** A command that runs what follows it. */
  readonly wrapper?: readonly string[];
  readonly onLine?: (line: LogLine) => void;
}

/** Herald as a process of its own. */
export interface ServerHandle {
  readonly pid: number;
  readonly port: number;
  readonly url: string;
  /** Settles with the exit code once it is gone, null when it was killed. */
  readonly exited: Promise<number | null>;
  signal(signal: NodeJS.Signals): void;
  /** Signals it, and settles as `exited`; fine when it is gone. */
  end(signal: NodeJS.Signals): Promise<number | null>;
}

/** Starts `src/server.ts`; settles when it listens. The caller ends it. */
export async function launch(options: LaunchOptions): Promise<ServerHandle> {
  const { env, cwd, nodeOptions = [], wrapper = [], onLine } = options;
  const [node, ...args] = sourceCommand('server.ts', []);
  const [program = node, ...rest] = [...wrapper, node, ...nodeOptions, ...args];
  const { PATH = '', HOME = '' } = process.env;
  const child = spawn(program, rest, { cwd, env: { PATH, HOME, ...env } });
  const exited = once(child, 'close').then(([code]) => code as number | null);
  const port = await listeningPort(child, onLine);
  return {
    pid: child.pid ?? 0,
    port,
    url: `https://127.0.0.1:${port}`,
    exited,
    signal: (signal) => void child.kill(signal),
    end(signal) {
      child.kill(signal);
      return exited;
    },
  };
}

function listeningPort(
  child: ChildProcessWithoutNullStreams,
  onLine: (line: LogLine) => void = () => {},
): Promise<number> {
  let errorOutput = '';
  child.stderr.on('data', (text) => {
    errorOutput += text;
  });
  return new Promise((resolve, reject) => {
    let partialLine = ''; // Where a process is killed, a line may end in its middle: that one is none.
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      const texts = (partialLine + chunk).split('\n');
      partialLine = texts.pop() ?? '';
      for (const text of texts) {
        if (!text.startsWith('{')) continue;
        recordLines(text);
        const line = JSON.parse(text);
        onLine(line);
        if (line.msg === 'listening') resolve(Number(new URL(line.url).port));
      }
    });
    child.once('close', () => reject(new Error(`Herald did not start: ${errorOutput}`)));
  });
}
