import { pathToFileURL } from 'node:url';
import { repositoryFolder } from '../machine.js';
import type { CallNode } from '../process/child.js';

/** The origin of some CPU time: a coarse kind and a specific name. */
export interface CpuOrigin {
  readonly kind: OriginKind;
  readonly name: string;
}

export type OriginKind =
  | "Node's C++ and the kernel: TLS, HTTP/2 frames, sockets"
  | "JavaScript of Herald's own, or its reference's"
  | 'JavaScript of Node'
  | 'JavaScript of packages'
  | 'garbage collection, main thread'
  | 'native code called by JavaScript'
  | "V8's helper threads: garbage collection, compiling"
  | 'other threads: libuv, database writer, jobs'
  | 'the profiler itself';

const nativeKind = 'native code called by JavaScript';
const repositoryUrl = pathToFileURL(repositoryFolder).href;

/** The origin of CPU outside all calls: C++ that handles socket input before JavaScript is called. */
export const betweenCalls: CpuOrigin = {
  kind: "Node's C++ and the kernel: TLS, HTTP/2 frames, sockets",
  name: 'C++ between calls',
};

/**
 * Returns the origin of the CPU of a call on top of the stack. A native function is attributed to its
 * caller, because the name that V8 reports for it is often wrong: all functions of an addon are entered
 * through a single function.
 */
export function getCallOrigin(
  { functionName, url }: CallNode['callFrame'],
  caller: CpuOrigin,
): CpuOrigin {
  if (functionName === '(garbage collector)') {
    return { kind: 'garbage collection, main thread', name: 'garbage collection' };
  }
  if (functionName === '(program)' || functionName === '(root)') return betweenCalls;
  if (url === '') {
    return caller.kind === nativeKind
      ? caller
      : { kind: nativeKind, name: `native, by ${caller.name}` };
  }
  if (url.startsWith('node:')) return { kind: 'JavaScript of Node', name: url };
  const path = url.replace(repositoryUrl, '');
  const pathInModules = path.split('node_modules/').at(-1);
  if (pathInModules === undefined || pathInModules === path) {
    return { kind: "JavaScript of Herald's own, or its reference's", name: path };
  }
  const [scope = '', scopedName = ''] = pathInModules.split('/');
  const name = scope.startsWith('@') ? `${scope}/${scopedName}` : scope;
  return { kind: 'JavaScript of packages', name };
}

/** Returns the origin of the CPU of a thread other than the main one, by its name in the kernel. */
export function getThreadOrigin(name: string): CpuOrigin {
  if (name === 'V8Worker' || name === 'DelayedTaskSche') {
    return { kind: "V8's helper threads: garbage collection, compiling", name: 'V8Worker' };
  }
  if (name.startsWith('v8:Prof')) return { kind: 'the profiler itself', name };
  const isPool = name === 'node' || name === 'libuv-worker';
  return {
    kind: 'other threads: libuv, database writer, jobs',
    name: isPool ? "libuv's pool" : `thread ${name}`,
  };
}
