import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, chownSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { freePort } from '../free-port.js';
import { until } from '../until.js';
import { findPrograms, getServerIdentity, type Programs } from './server-programs.js';
import { type ServerDialect, serverAt, type TestServer } from './test-server.js';

/** A database server that only one test file uses, and may crash or freeze. */
export interface DedicatedServer extends TestServer {
  /** Settles when the server accepts connections. */
  start(): Promise<void>;
  /** Stops the server abruptly; only what the operating system has buffered survives. */
  crash(): Promise<void>;
  /** Suspends the server's processes until `thaw`. */
  freeze(): void;
  thaw(): void;
  /** Replaces certificate and key for new connections. */
  replaceTls(tls: ServerTls): Promise<void>;
  /** Stops the server and deletes its data. */
  remove(): Promise<void>;
}

/** Certificate and private key of the database server, PEM. */
export interface ServerTls {
  readonly certificate: string;
  readonly privateKey: string;
}

const reloadTlsStatements: Readonly<Record<ServerDialect, string>> = {
  postgres: 'select pg_reload_conf()',
  mariadb: 'flush ssl',
  mysql: 'alter instance reload tls',
};

interface DedicatedServerOptions {
  readonly tls?: ServerTls;
  /** PostgreSQL: the content of `pg_hba.conf`. By default every login is accepted. */
  readonly hbaRules?: string;
  /** Additional arguments of the server. */
  readonly args?: readonly string[];
  /** PostgreSQL: creates a streaming replica of the running server on this port. */
  readonly primaryPort?: number;
}

/** Creates a server without starting it. When that is impossible, returns the reason, as text for `skip`. */
export async function createDedicatedServer(
  dialect: ServerDialect,
  { tls, hbaRules, args = [], primaryPort }: DedicatedServerOptions = {},
): Promise<DedicatedServer | string> {
  const programs = findPrograms(dialect, await freePort(), primaryPort);
  if (typeof programs === 'string') return programs;
  const { user, crashSignal, url, folder } = programs;
  programs.prepare();
  if (hbaRules !== undefined) writeFileSync(join(folder, 'data', 'pg_hba.conf'), hbaRules);
  const tlsArgs = tls === undefined ? [] : writeTlsFiles(programs, tls);
  const command = [...programs.command, ...args, ...tlsArgs];
  const server = serverAt(dialect, new URL(url));
  let child: ChildProcess | undefined;
  process.once('exit', () => child?.kill(crashSignal));
  // A signal of the test runner ends a file that takes too long. Without a handler, `exit` is not emitted then.
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => process.exit(1));
  const stopWith = async (signal: NodeJS.Signals) => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exit = new Promise((resolve) => child?.once('exit', resolve));
    child.kill(signal);
    await exit;
  };
  return {
    ...server,
    async start() {
      const [program = '', ...args] = command;
      child = spawn(program, args, {
        ...getServerIdentity(user),
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      let output = '';
      for (const stream of [child.stdout, child.stderr]) {
        stream?.on('data', (chunk) => {
          output = (output + chunk).slice(-5000);
        });
      }
      await until(() => {
        if (child?.exitCode !== null) throw new Error(`Cannot start ${dialect}: ${output}`);
        return isReachable(server);
      });
    },
    crash: () => stopWith(crashSignal),
    freeze: () => signalProcessTree(child, 'SIGSTOP'),
    thaw: () => signalProcessTree(child, 'SIGCONT'),
    async replaceTls(newTls) {
      writeTlsFiles(programs, newTls);
      await server.administer(reloadTlsStatements[dialect]);
    },
    async remove() {
      signalProcessTree(child, 'SIGCONT');
      await stopWith(crashSignal);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Writes the certificate and key, and returns the server's arguments for them. */
function writeTlsFiles(
  { folder, inside, user, tlsArgs }: Programs,
  { certificate, privateKey }: ServerTls,
): readonly string[] {
  const files = { 'server.cert': certificate, 'server.key': privateKey };
  for (const [name, content] of Object.entries(files)) {
    writeFileSync(join(folder, name), content, { mode: 0o600 });
    const { uid, gid } = getServerIdentity(user);
    if (uid !== undefined && gid !== undefined) chownSync(join(folder, name), uid, gid);
    else if (user === 'root') chmodSync(join(folder, name), 0o644); // The server runs as another user.
  }
  return tlsArgs(join(inside, 'server.cert'), join(inside, 'server.key'));
}

async function isReachable(server: TestServer): Promise<boolean> {
  try {
    await server.administer('select 1');
    return true;
  } catch {
    return false;
  }
}

/** Signals a process and its children, because PostgreSQL has a child process per connection. */
function signalProcessTree(child: ChildProcess | undefined, signal: NodeJS.Signals): void {
  if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  child.kill(signal);
  for (const pid of getChildPids(child.pid)) {
    try {
      process.kill(pid, signal);
    } catch {
      // The process has ended meanwhile.
    }
  }
}

function getChildPids(parent: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
        return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) === parent;
      } catch {
        return false; // The process has ended meanwhile.
      }
    })
    .map(Number);
}
