import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import type { TestContext } from 'node:test';

/** A host of its own that a server on `address` can be reached from, and that can vanish. */
export interface RemoteHost {
  /** Ours, as the other host sees it. */
  readonly address: string;
  /** Starts a program there. It is ended after the test. */
  run(...command: string[]): void;
  /** From now on nothing comes back from there: no data, no acknowledgement, no goodbye. */
  blackhole(): void;
}

const ip = (...args: string[]) => execFileSync('ip', args, { stdio: 'pipe' });

/** Why there can be no such host here, or false: it needs root, Linux, and the package iproute2. */
export function getSkipReason(): string | false {
  const name = `herald-probe-${process.pid}`;
  try {
    ip('netns', 'add', name);
    ip('netns', 'del', name);
    return false;
  } catch {
    return 'no network namespace can be made here: that needs root and iproute2';
  }
}

/** Makes the host: a network namespace behind a pair of virtual cables. */
export function openRemoteHost(t: TestContext): RemoteHost {
  const [name, here, there] = [`herald-${process.pid}`, `hh${process.pid}`, `ht${process.pid}`];
  const [ours, theirs] = getAddressPair(process.pid);
  const exec = (...command: string[]) => ip('netns', 'exec', name, ...command);
  ip('netns', 'add', name);
  const children: ChildProcess[] = [];
  t.after(() => {
    for (const child of children) child.kill('SIGKILL'); // `ip` has become the program by then.
    ip('link', 'del', here);
    ip('netns', 'del', name);
  });
  ip('link', 'add', here, 'type', 'veth', 'peer', 'name', there, 'netns', name);
  ip('addr', 'add', `${ours}/30`, 'dev', here);
  ip('link', 'set', here, 'up');
  exec('ip', 'addr', 'add', `${theirs}/30`, 'dev', there);
  exec('ip', 'link', 'set', there, 'up');
  return {
    address: ours,
    run(...command) {
      children.push(spawn('ip', ['netns', 'exec', name, ...command], { stdio: 'ignore' }));
    },
    blackhole: () => exec('ip', 'route', 'add', 'blackhole', `${ours}/32`),
  };
}

/** Both ends of a cable, of the block for tests of networks, 198.18.0.0/15: RFC 2544. */
function getAddressPair(pid: number): [ours: string, theirs: string] {
  const network = (198 << 24) + (18 << 16) + 4 * (pid % 32_768);
  const addressAt = (host: number) =>
    [24, 16, 8, 0].map((bits) => ((network + host) >> bits) & 255).join('.');
  return [addressAt(1), addressAt(2)];
}
