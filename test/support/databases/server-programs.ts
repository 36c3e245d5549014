import { execFileSync } from 'node:child_process';
import { chownSync, existsSync, mkdtempSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createData } from './data-template.js';
import type { ServerDialect } from './test-server.js';

/** The programs and arguments that create and start a dedicated database server. */
export interface Programs {
  /** The folder of the server, on this machine. */
  readonly folder: string;
  /** Creates the data in the folder. */
  readonly prepare: () => void;
  readonly command: readonly [string, ...string[]];
  readonly user: string;
  /** Ends the server without a clean shutdown. */
  readonly crashSignal: NodeJS.Signals;
  readonly url: string;
  /** The path of `folder` inside the server's chroot; the same path without a chroot. */
  readonly inside: string;
  readonly tlsArgs: (certificate: string, privateKey: string) => readonly string[];
}

/** Finds the programs of a dialect. When they are not installed, returns the reason, as text for `skip`. */
export function findPrograms(
  dialect: ServerDialect,
  port: number,
  primaryPort?: number,
): Programs | string {
  if (dialect === 'postgres') return findPostgresPrograms(port, primaryPort);
  return dialect === 'mariadb' ? findMariadbPrograms(port) : findMysqlPrograms(port);
}

/** Turns fsync off: a commit then reaches only the operating system, which survives a crash of the server. */
function findPostgresPrograms(port: number, primaryPort: number | undefined): Programs | string {
  const found = existsSync('/usr/lib/postgresql') ? readdirSync('/usr/lib/postgresql') : [];
  const version = found.sort((a, b) => Number(b) - Number(a))[0];
  if (version === undefined) return 'no programs of PostgreSQL in /usr/lib/postgresql';
  const bin = join('/usr/lib/postgresql', version, 'bin');
  const user = 'postgres';
  const folder = createServerFolder(user);
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
      if (primaryPort !== undefined) {
        const primary = ['-h', '127.0.0.1', '-p', String(primaryPort), '-U', user];
        const copying = ['-D', data, '-R', '--checkpoint=fast', '--no-sync', ...primary];
        execFileSync(join(bin, 'pg_basebackup'), copying, {
          ...getServerIdentity(user),
          stdio: 'pipe',
        });
        return;
      }
      const args = ['-D', data, '-U', user, '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync'];
      createData('postgres', data, () =>
        execFileSync(join(bin, 'initdb'), args, { ...getServerIdentity(user), stdio: 'pipe' }),
      );
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

function findMariadbPrograms(port: number): Programs | string {
  if (!hasProgram('mariadbd') || !hasProgram('mariadb-install-db')) return 'no MariaDB programs';
  const user = 'mysql';
  const folder = createServerFolder(user);
  const dataFolder = join(folder, 'data');
  // A server that starts deletes the temporary tables in its folder, so servers must not share it.
  const dataArgs = [`--datadir=${dataFolder}`, `--tmpdir=${folder}`];
  return {
    ...{ user, folder, inside: folder },
    tlsArgs: sslArgs,
    url: `mariadb://root@127.0.0.1:${port}`,
    crashSignal: 'SIGKILL',
    prepare() {
      const args = ['--no-defaults', '--force', ...dataArgs, '--skip-test-db'];
      args.push('--auth-root-authentication-method=normal');
      createData('mariadb', dataFolder, () =>
        execFileSync('mariadb-install-db', args, { ...getServerIdentity(user), stdio: 'pipe' }),
      );
    },
    command: [
      'mariadbd',
      ...['--no-defaults', ...dataArgs, '--bind-address=127.0.0.1', `--port=${port}`, ...innodb],
      ...[`--socket=${join(folder, 'socket')}`, `--pid-file=${join(folder, 'pid')}`],
    ],
  };
}

const mysqlRoot = fileURLToPath(new URL('../../../.scratch/mysql-root', import.meta.url));

/** Uses the chroot that `test/mysql.sh` creates. */
function findMysqlPrograms(port: number): Programs | string {
  if (process.getuid?.() !== 0) return 'only root can start a server in a chroot';
  if (!existsSync(join(mysqlRoot, 'usr/sbin/mysqld'))) return 'no MySQL: test/mysql.sh start';
  const folder = mkdtempSync(join(mysqlRoot, 'var/lib/herald-'));
  const dataFolder = `/var/lib/${basename(folder)}`;
  const dataArgs = ['--no-defaults', '--user=mysql', `--datadir=${dataFolder}/data`];
  // TMPDIR may not exist inside the chroot.
  dataArgs.push('--secure-file-priv=NULL', `--tmpdir=${dataFolder}`);
  const inside = (...args: string[]) =>
    execFileSync('chroot', [mysqlRoot, ...args], { stdio: 'pipe' });
  return {
    folder,
    inside: dataFolder,
    tlsArgs: sslArgs,
    user: 'root', // Runs `chroot`; the server itself runs as `mysql`.
    url: `mysql://root@127.0.0.1:${port}`,
    crashSignal: 'SIGKILL',
    prepare() {
      inside('chown', 'mysql:mysql', dataFolder);
      createData('mysql', join(folder, 'data'), () =>
        inside('mysqld', ...dataArgs, '--initialize-insecure'),
      );
    },
    command: [
      'chroot',
      ...[
        mysqlRoot,
        'mysqld',
        ...dataArgs,
        '--bind-address=127.0.0.1',
        `--port=${port}`,
        ...innodb,
      ],
      ...[
        '--mysqlx=OFF',
        '--skip-log-bin',
        `--socket=${dataFolder}/socket`,
        `--pid-file=${dataFolder}/pid`,
      ],
    ],
  };
}

/**
 * Returns the user and group id to start a server with when this process runs as root, because database
 * servers refuse root. Otherwise returns none, and the server runs as the current user.
 */
export function getServerIdentity(user: string): { uid?: number; gid?: number } {
  if (process.getuid?.() !== 0 || user === 'root') return {};
  return { uid: readId('-u', user), gid: readId('-g', user) };
}

function createServerFolder(user: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'herald-server-'));
  const { uid, gid } = getServerIdentity(user);
  if (uid !== undefined && gid !== undefined) chownSync(folder, uid, gid);
  return folder;
}

function readId(option: '-u' | '-g', user: string): number {
  return Number(execFileSync('id', [option, user], { encoding: 'utf8' }));
}

function hasProgram(name: string): boolean {
  return (process.env['PATH'] ?? '').split(':').some((folder) => existsSync(join(folder, name)));
}
