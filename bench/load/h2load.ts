import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { loadCore } from '../machine.js';

export interface H2LoadPlan {
  readonly port: number;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly connectionCount: number;
  readonly requestCount: number;
  /** Folder for the file with the body. */
  readonly folder: string;
}

const run = promisify(execFile);

/**
 * Sends `POST` requests with the body `{}`, one at a time on each connection, with h2load (nghttp2).
 * Returns the number of requests per second. Rejects unless all responses are 2xx.
 */
export async function h2load(plan: H2LoadPlan): Promise<number> {
  const { port, path, headers, connectionCount, requestCount, folder } = plan;
  const bodyFile = join(folder, 'body.json');
  writeFileSync(bodyFile, '{}');
  const [program = '', ...args] = [
    ...(loadCore === 'all' ? [] : ['taskset', '-c', String(loadCore)]),
    ...[
      'h2load',
      '-n',
      String(requestCount),
      '-c',
      String(connectionCount),
      '-m',
      '1',
      '-d',
      bodyFile,
    ],
    ...Object.entries(headers).flatMap(([name, value]) => ['-H', `${name}: ${value}`]),
    `https://127.0.0.1:${port}${path}`,
  ];
  const { stdout } = await run(program, args);
  const rate = /finished in .*?, ([\d.]+) req\/s/.exec(stdout)?.[1];
  const okCount = /status codes: (\d+) 2xx/.exec(stdout)?.[1];
  if (rate === undefined || Number(okCount) !== requestCount) {
    throw new Error(`Cannot measure with h2load:\n${stdout}`);
  }
  return Number(rate);
}
