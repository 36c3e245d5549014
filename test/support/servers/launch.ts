import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { startOpenApiCheck } from '../openapi/observer.js';
import { recordLines } from '../recording/record.js';
import { withDeadline } from '../with-deadline.js';
import { sourceCommand } from './process.js';
import type { Env } from './seed.js';

/** A log line, parsed from JSON. */
export type LogLine = Readonly<Record<string, unknown>>;

export interface LaunchOptions {
  /** The whole environment except `PATH` and `HOME`. */
  readonly env: Env;
  readonly cwd: string;
  /** The folder that has `src`; `sourceRoot` by default. */
  readonly root?: string;
  /** Options of Node, before the program. */
  readonly nodeOptions?: readonly string[];
  /** A command, such as `['bash', '-c', script]`, that gets Herald's command line as its arguments. */
  readonly wrapper?: readonly string[];
  readonly onLine?: (line: LogLine) => void;
}

/** Herald running as a child process. */
export interface ServerHandle {
  readonly pid: number;
  readonly port: number;
  readonly url: string;
  /** Settles with the exit code when the process has ended; null when it was killed. */
  readonly exited: Promise<number | null>;
  signal(signal: NodeJS.Signals): void;
  /** Sends a signal unless the process has ended, and settles like `exited`; rejects after a minute. */
  end(signal: NodeJS.Signals): Promise<number | null>;
}

/** Starts `src/server.ts` and settles when it listens; rejects after a minute. The caller ends the process. */
export async function launch(options: LaunchOptions): Promise<ServerHandle> {
  const { env, cwd, root, nodeOptions = [], wrapper = [], onLine } = options;
  const [node, ...args] = sourceCommand('server.ts', [], root);
  const [program = node, ...rest] = [...wrapper, node, ...nodeOptions, ...args];
  const { PATH = '', HOME = '' } = process.env;
  const child = spawn(program, rest, { cwd, env: { PATH, HOME, ...env } });
  const exited = once(child, 'close').then(([code]) => code as number | null);
  const { protocol, port } = await listeningUrl(child, onLine).catch((error) => {
    child.kill('SIGKILL');
    throw error;
  });
  const stopCheck = startOpenApiCheck(Number(port));
  child.once('close', stopCheck);
  return {
    pid: child.pid ?? 0,
    port: Number(port),
    url: `${protocol}//127.0.0.1:${port}`,
    exited,
    signal: (signal) => void child.kill(signal),
    end(signal) {
      child.kill(signal);
      return withDeadline(exited, `the exit of Herald after ${signal}`);
    },
  };
}

function listeningUrl(
  child: ChildProcessWithoutNullStreams,
  onLine: (line: LogLine) => void = () => {},
): Promise<URL> {
  let errorOutput = '';
  child.stderr.on('data', (text) => {
    errorOutput += text;
  });
  const listening = new Promise<URL>((resolve, reject) => {
    let partialLine = ''; // A killed process may leave an incomplete line, which is ignored.
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      const texts = (partialLine + chunk).split('\n');
      partialLine = texts.pop() ?? '';
      for (const text of texts) {
        if (!text.startsWith('{')) continue;
        recordLines(text);
        const line = JSON.parse(text);
        onLine(line);
        if (line.msg === 'listening') resolve(new URL(line.url));
      }
    });
    child.once('close', () => reject(new Error(`Herald did not start: ${errorOutput}`)));
  });
  return withDeadline(listening, () => `the log line "listening"; standard error: ${errorOutput}`);
}
