import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { isInstalled, serverCore } from '../../machine.js';
import { Child, type MeasurableServer } from '../../process/child.js';
import type { Bench } from '../../subject.js';
import type { StreamTarget } from './stream-target.js';

const folder = fileURLToPath(new URL('../../peers', import.meta.url));

/**
 * Installs the packages of `bench/peers` if necessary: the peers, which are other SSE servers that are
 * measured for comparison, and d3. Returns whether the packages are installed.
 */
export function installPeers({ print }: Pick<Bench, 'print'>): boolean {
  const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>;
  };
  const isPackageInstalled = (name: string) => existsSync(join(folder, 'node_modules', name));
  if (Object.keys(manifest.dependencies).every(isPackageInstalled)) return true;
  print('installing bench/peers');
  const args = ['ci', '--prefix', folder, '--no-audit', '--no-fund'];
  const { status } = spawnSync('npm', args, { stdio: ['ignore', 'ignore', 'inherit'] });
  if (status !== 0) print('no peers: npm could not install bench/peers');
  return status === 0;
}

export function startPeer(file: string, env: Readonly<Record<string, string>>): Promise<Child> {
  const readyPattern = /https:\/\/127.0.0.1:(\d+)/;
  return Child.start({ args: [join(folder, file)], env, core: serverCore, readyPattern });
}

/** Starts the peers of `bench/peers` and nchan, as far as they are installed on this machine. */
export async function openPeerTargets(bench: Bench, streamCount: number): Promise<StreamTarget[]> {
  const targets: StreamTarget[] = [];
  const request = { path: '/stream', headers: { accept: 'text/event-stream' } };
  const common = { streams: Array.from({ length: streamCount }, () => request), headers: {} };
  if (installPeers(bench)) {
    const peers = [
      { file: 'better-sse.mjs', name: 'better-sse on node:http2', protocol: 'h2' },
      { file: 'fastify-sse.mjs', name: '@fastify/sse, http/1.1', protocol: 'http/1.1' },
      { file: 'express-example.mjs', name: 'Express example, http/1.1', protocol: 'http/1.1' },
    ] as const;
    for (const { file, name, protocol } of peers) {
      const child = await bench.use(startPeer(file, bench.certificate));
      targets.push({ ...common, name, child, port: child.port, protocol });
    }
  }
  const nchan = '/usr/lib/nginx/modules/ngx_nchan_module.so';
  if (isInstalled('nginx') && existsSync(nchan)) {
    const child = await bench.use(Nginx.start(bench));
    targets.push({ ...common, name: 'nchan (nginx, C)', child, port: child.port, protocol: 'h2' });
  } else bench.print('nchan is not installed; bench/tools.sh installs it');
  return targets;
}

/** An nginx with nchan. It runs as a single process, so that `usage` covers all of it. */
class Nginx implements MeasurableServer {
  readonly port: number;
  readonly #process: ChildProcess;

  private constructor(child: ChildProcess, port: number) {
    this.#process = child;
    this.port = port;
  }

  static async start(bench: Bench): Promise<Nginx> {
    const directory = bench.createFolder();
    const port = await findFreePort();
    writeFileSync(join(directory, 'nginx.conf'), buildConfiguration(bench, directory, port));
    const command = [
      'nginx',
      '-p',
      directory,
      '-c',
      'nginx.conf',
      '-e',
      join(directory, 'error.log'),
    ];
    const pinned = serverCore === 'all' ? command : ['taskset', '-c', `${serverCore}`, ...command];
    const [program = '', ...args] = pinned;
    const child = spawn(program, args, { stdio: 'ignore' });
    await pause(500);
    if (child.exitCode !== null) {
      throw new Error(`Cannot start nginx: ${readFileSync(join(directory, 'error.log'), 'utf8')}`);
    }
    return new Nginx(child, port);
  }

  /** Reads the usage from `/proc`, with CPU time in steps of 10 ms; `heapBytes` is always 0. */
  async usage(): Promise<{ cpuMicros: number; rssBytes: number; heapBytes: number }> {
    const fields = readFileSync(`/proc/${this.#process.pid}/stat`, 'utf8')
      .split(') ')[1]
      ?.split(' ');
    const ticks = Number(fields?.[11]) + Number(fields?.[12]);
    return { cpuMicros: ticks * 10_000, rssBytes: Number(fields?.[21]) * 4096, heapBytes: 0 };
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode !== null) return;
    const exit = new Promise((resolve) => this.#process.once('exit', resolve));
    this.#process.kill('SIGTERM');
    await exit;
  }
}

function buildConfiguration(bench: Bench, directory: string, port: number): string {
  return `
load_module /usr/lib/nginx/modules/ngx_nchan_module.so;
daemon off; master_process off; pid ${directory}/pid; user root;
events { worker_connections 20000; }
http {
  access_log off; keepalive_requests 1000000; client_body_temp_path ${directory};
  proxy_temp_path ${directory}; fastcgi_temp_path ${directory}; uwsgi_temp_path ${directory};
  scgi_temp_path ${directory};
  server {
    listen 127.0.0.1:${port} ssl http2;
    ssl_certificate ${bench.certificate['CERTIFICATE']};
    ssl_certificate_key ${bench.certificate['PRIVATE_KEY']};
    location = /events { nchan_publisher; nchan_channel_id all; nchan_message_buffer_length 10; }
    location = /stream {
      nchan_subscriber eventsource; nchan_channel_id all; nchan_subscriber_first_message newest;
    }
  }
}`;
}

async function findFreePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === 'object' && address !== null ? address.port : 0;
}
