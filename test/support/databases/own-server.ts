import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort } from '../free-port.js';
import { until } from '../until.js';
import type { ServerDialect, TestServer } from './test-server.js';
import { serverAt } from './test-server.js';

/** A database server that belongs to one test file, so that it can be ill-treated. */
export interface OwnServer extends TestServer {
  /** Settles when it takes connections. */
  start(): Promise<void>;
  /** Ends it as a power failure would, but for what the operating system has in memory. */
  crash(): Promise<void>;
  /** It goes on existing and does nothing, until `thaw`. */
  freeze(): void;
  thaw(): void;
  /** Ends it and removes what it kept. */
  remove(): Promise<void>;
}

interface Programs {
  readonly folder: string;
  /** Makes the folder's content. */
  readonly prepare: () => void;
  readonly command: readonly [string, ...string[]];
  readonly user: string;
  /** That ends all at once. */
  readonly crashSignal: NodeJS.Signals;
  readonly url: string;
  /** The folder as the server sees it. */
  readonly inside: string;
  readonly tlsArgs: (certificate: string, privateKey: string) => readonly string[];
}

/** PEM: what a server shows to those who ask for encryption. */
export interface ServerTls {
  readonly certificate: string;
  readonly privateKey: string;
}

/** Made, not started. Or the reason why there is none, fit for `skip`. */
export async function ownServer(
  dialect: ServerDialect,
  { tls }: { tls?: ServerTls } = {},
): Promise<OwnServer | string> {
  const programs = programsOf(dialect, await freePort());
  if (typeof programs === 'string') return programs;
  const { user, crashSignal, url, folder } = programs;
  programs.prepare();
  const command = [...programs.command, ...(tls === undefined ? [] : tlsSettings(programs, tls))];
  const server = serverAt(dialect, new URL(url));
  let child: ChildProcess | undefined;
  process.once('exit', () => child?.kill(crashSignal));
  // The runner ends a file so that takes too long, and a signal alone is no `exit`.
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => process.exit(1));
  const ended = async (signal: NodeJS.Signals) => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exit = new Promise((resolve) => child?.once('exit', resolve));
    child.kill(signal);
    await exit;
  };
  return {
    ...server,
    async start() {
      const [program = '', ...args] = command;
      child = spawn(program, args, { ...identityOf(user), stdio: ['ignore', 'pipe', 'pipe'] });
      let output = '';
      for (const stream of [child.stdout, child.stderr]) {
        stream?.on('data', (chunk) => {
          output = (output + chunk).slice(-5000);
        });
      }
      await until(() => {
        if (child?.exitCode !== null) throw new Error(`Cannot start ${dialect}: ${output}`);
        return answers(server);
      });
    },
    crash: () => ended(crashSignal),
    freeze: () => signalFamily(child, 'SIGSTOP'),
    thaw: () => signalFamily(child, 'SIGCONT'),
    async remove() {
      signalFamily(child, 'SIGCONT');
      await ended(crashSignal);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Writes the files and answers the arguments that name them. */
function tlsSettings(
  { folder, inside, user, tlsArgs }: Programs,
  { certificate, privateKey }: ServerTls,
): readonly string[] {
  const files = { 'server.cert': certificate, 'server.key': privateKey };
  for (const [name, content] of Object.entries(files)) {
    writeFileSync(join(folder, name), content, { mode: 0o600 });
    const { uid, gid } = identityOf(user);
    if (uid !== undefined && gid !== undefined) chownSync(join(folder, name), uid, gid);
    else if (user === 'root') chmodSync(join(folder, name), 0o644); // The server is somebody else.
  }
  return tlsArgs(join(inside, 'server.cert'), join(inside, 'server.key'));
}

async function answers(server: TestServer): Promise<boolean> {
  try {
    await server.administer('select 1');
    return true;
  } catch {
    return false;
  }
}

function programsOf(dialect: ServerDialect, port: number): Programs | string {
  if (dialect === 'postgres') return postgresPrograms(port);
  return dialect === 'mariadb' ? mariadbPrograms(port) : mysqlPrograms(port);
}

/** What is written reaches the operating system with every commit, which is enough for a crash. */
function postgresPrograms(port: number): Programs | string {
  const found = existsSync('/usr/lib/postgresql') ? readdirSync('/usr/lib/postgresql') : [];
  const version = found.sort((a, b) => Number(b) - Number(a))[0];
  if (version === undefined) return 'no programs of PostgreSQL in /usr/lib/postgresql';
  const bin = join('/usr/lib/postgresql', version, 'bin');
  const user = 'postgres';
  const folder = folderOf(user);
  const data = join(folder, 'data');
  const settings = ['-c', 'fsync=off', '-c', 'max_connections=50'];
  return {
    ...{ user, folder, inside: folder },
    tlsArgs: (certificate, privateKey) => [
      ...['-c', 'ssl=on', '-c', `ssl_cert_file=${certificate}`, '-c', `ssl_key_file=${privateKey}`],
    ],
    url: `postgres://postgres@127.0.0.1:${port}`,
    crashSignal: 'SIGQUIT',
    prepare() {
      const args = ['-D', data, '-U', user, '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync'];
      execFileSync(join(bin, 'initdb'), args, { ...identityOf(user), stdio: 'pipe' });
    },
    command: [
      join(bin, 'postgres'),
      ...['-D', data, '-p', String(port), '-h', '127.0.0.1', '-k', folder, ...settings],
    ],
  };
}

const sslArgs = (certificate: string, privateKey: string) => [
  `--ssl-cert=${certificate}`,
  `--ssl-key=${privateKey}`,
];

const innodb = ['--innodb-flush-log-at-trx-commit=2', '--innodb-buffer-pool-size=32M'];

function mariadbPrograms(port: number): Programs | string {
  if (!hasProgram('mariadbd') || !hasProgram('mariadb-install-db')) return 'no MariaDB programs';
  const user = 'mysql';
  const folder = folderOf(user);
  const data = `--datadir=${join(folder, 'data')}`;
  return {
    ...{ user, folder, inside: folder },
    tlsArgs: sslArgs,
    url: `mariadb://root@127.0.0.1:${port}`,
    crashSignal: 'SIGKILL',
    prepare() {
      const args = ['--no-defaults', '--force', data, '--skip-test-db'];
      args.push('--auth-root-authentication-method=normal');
      execFileSync('mariadb-install-db', args, { ...identityOf(user), stdio: 'pipe' });
    },
    command: [
      'mariadbd',
      ...['--no-defaults', data, '--bind-address=127.0.0.1', `--port=${port}`, ...innodb],
      ...[`--socket=${join(folder, 'socket')}`, `--pid-file=${join(folder, 'pid')}`],
    ],
  };
}

const mysqlRoot = fileURLToPath(new URL('../../../.scratch/mysql-root', import.meta.url));

/** In the chroot that `test/mysql.sh` makes. */
function mysqlPrograms(port: number): Programs | string {
  if (process.getuid?.() !== 0) return 'only root can start a server in a chroot';
  if (!existsSync(join(mysqlRoot, 'usr/sbin/mysqld'))) return 'no MySQL: test/mysql.sh start';
  const folder = mkdtempSync(join(mysqlRoot, 'var/lib/herald-'));
  const place = `/var/lib/${basename(folder)}`;
  const data = ['--no-defaults', '--user=mysql', `--datadir=${place}/data`];
  data.push('--secure-file-priv=NULL');
  const inside = (...args: string[]) =>
    execFileSync('chroot', [mysqlRoot, ...args], { stdio: 'pipe' });
  return {
    folder,
    inside: place,
    tlsArgs: sslArgs,
    user: 'root', // Of `chroot`; the server itself is `mysql`.
    url: `mysql://root@127.0.0.1:${port}`,
    crashSignal: 'SIGKILL',
    prepare() {
      inside('chown', 'mysql:mysql', place);
      inside('mysqld', ...data, '--initialize-insecure');
    },
    command: [
      'chroot',
      ...[mysqlRoot, 'mysqld', ...data, '--bind-address=127.0.0.1', `--port=${port}`, ...innodb],
      ...['--mysqlx=OFF', '--skip-log-bin', `--socket=${place}/socket`, `--pid-file=${place}/pid`],
    ],
  };
}

/** Servers refuse to be root; whoever is somebody else starts them as that. */
function identityOf(user: string): { uid?: number; gid?: number } {
  if (process.getuid?.() !== 0 || user === 'root') return {};
  return { uid: idOf('-u', user), gid: idOf('-g', user) };
}

function folderOf(user: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'herald-server-'));
  const { uid, gid } = identityOf(user);
  if (uid !== undefined && gid !== undefined) chownSync(folder, uid, gid);
  return folder;
}

function idOf(option: '-u' | '-g', user: string): number {
  return Number(execFileSync('id', [option, user], { encoding: 'utf8' }));
}

function hasProgram(name: string): boolean {
  return (process.env['PATH'] ?? '').split(':').some((folder) => existsSync(join(folder, name)));
}

/** A process and its children: PostgreSQL has one for each connection. */
function signalFamily(child: ChildProcess | undefined, signal: NodeJS.Signals): void {
  if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  child.kill(signal);
  for (const pid of childrenOf(child.pid)) {
    try {
      process.kill(pid, signal);
    } catch {
      // It has ended by now.
    }
  }
}

function childrenOf(parent: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
        return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) === parent;
      } catch {
        return false; // It is gone by now.
      }
    })
    .map(Number);
}
