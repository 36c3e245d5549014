import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import type { TestContext } from 'node:test';

/** A separate host that can reach a server on `address`, and that can vanish. */
export interface RemoteHost {
  /** This machine's address as the remote host sees it. */
  readonly address: string;
  /** Starts a program on the remote host. It is killed after the test. */
  run(...command: string[]): void;
  /** Drops all packets from the remote host from now on: no data, no ACK, no FIN or RST. */
  blackhole(): void;
}

const ip = (...args: string[]) => execFileSync('ip', args, { stdio: 'pipe' });

/** Returns why a remote host cannot be created, or false. A remote host needs root, Linux and iproute2. */
export function getSkipReason(): string | false {
  const name = `herald-probe-${process.pid}`;
  try {
    ip('netns', 'add', name);
    ip('netns', 'del', name);
    return false;
  } catch {
    return 'cannot create a network namespace: it needs root and iproute2';
  }
}

let hosts = 0;

/** Creates a remote host: a network namespace behind a veth pair. It is removed after the test. */
export function openRemoteHost(t: TestContext): RemoteHost {
  hosts += 1;
  const suffix = `${process.pid}-${hosts}`; // The name of a link has at most 15 characters.
  const [name, localLink, remoteLink] = [`herald-${suffix}`, `hh${suffix}`, `ht${suffix}`];
  const [localAddress, remoteAddress] = getAddressPair(2 * process.pid + hosts);
  const exec = (...command: string[]) => ip('netns', 'exec', name, ...command);
  ip('netns', 'add', name);
  const children: ChildProcess[] = [];
  t.after(() => {
    for (const child of children) child.kill('SIGKILL'); // `ip` has replaced itself by the program.
    ip('link', 'del', localLink);
    ip('netns', 'del', name);
  });
  ip('link', 'add', localLink, 'type', 'veth', 'peer', 'name', remoteLink, 'netns', name);
  ip('addr', 'add', `${localAddress}/30`, 'dev', localLink);
  ip('link', 'set', localLink, 'up');
  exec('ip', 'addr', 'add', `${remoteAddress}/30`, 'dev', remoteLink);
  exec('ip', 'link', 'set', remoteLink, 'up');
  return {
    address: localAddress,
    run(...command) {
      children.push(spawn('ip', ['netns', 'exec', name, ...command], { stdio: 'ignore' }));
    },
    blackhole: () => exec('ip', 'route', 'add', 'blackhole', `${localAddress}/32`),
  };
}

/** Returns a pair of addresses of 198.18.0.0/15, the block for network tests. Spec: RFC 2544. */
function getAddressPair(index: number): [local: string, remote: string] {
  const network = (198 << 24) + (18 << 16) + 4 * (index % 32_768);
  const addressAt = (host: number) =>
    [24, 16, 8, 0].map((bits) => ((network + host) >> bits) & 255).join('.');
  return [addressAt(1), addressAt(2)];
}
