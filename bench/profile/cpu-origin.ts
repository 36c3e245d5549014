import { pathToFileURL } from 'node:url';
import { repositoryFolder } from '../machine.js';
import type { CallNode } from '../process/child.js';

/** What used some CPU time: a kind, such as JavaScript of packages, and a name, such as one package. */
export interface CpuOrigin {
  readonly kind: OriginKind;
  readonly name: string;
}

export type OriginKind =
  | "Node's C++ and the kernel: TLS, HTTP/2 frames, sockets"
  | 'JavaScript of Herald or of the reference'
  | 'JavaScript of Node'
  | 'JavaScript of packages'
  | 'garbage collection, main thread'
  | 'native code called by JavaScript'
  | "V8's helper threads: garbage collection, compiling"
  | 'other threads: libuv, database writer, jobs'
  | "V8's CPU profiler";

const nativeKind = 'native code called by JavaScript';
const repositoryUrl = pathToFileURL(repositoryFolder).href;

/** Origin of the CPU time in which no call was sampled: Node's C++ that handles sockets around calls. */
export const betweenCalls: CpuOrigin = {
  kind: "Node's C++ and the kernel: TLS, HTTP/2 frames, sockets",
  name: "Node's C++ and the kernel, outside JavaScript calls",
};

/**
 * Returns the origin of a function's self time: the CPU time without the functions that it called.
 * `caller` is the origin of the function that called it. Native code is attributed to the JavaScript
 * that called it, because V8 often reports a wrong name for native code: all functions of an addon are
 * entered through a single function.
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
      : { kind: nativeKind, name: `native code called by ${caller.name}` };
  }
  if (url.startsWith('node:')) return { kind: 'JavaScript of Node', name: url };
  const path = url.replace(repositoryUrl, '');
  const pathInModules = path.split('node_modules/').at(-1);
  if (pathInModules === undefined || pathInModules === path) {
    return { kind: 'JavaScript of Herald or of the reference', name: path };
  }
  const [scope = '', scopedName = ''] = pathInModules.split('/');
  const name = scope.startsWith('@') ? `${scope}/${scopedName}` : scope;
  return { kind: 'JavaScript of packages', name };
}

/**
 * Returns the origin of the CPU time of a thread, except the main thread. `name` is the kernel's name of
 * the thread. Threads that neither Node nor the probe names are called `node`: in Node 20 the threads of
 * libuv's pool and V8's thread for delayed tasks.
 */
export function getThreadOrigin(name: string): CpuOrigin {
  if (name === 'V8Worker' || name === 'DelayedTaskSche') {
    return { kind: "V8's helper threads: garbage collection, compiling", name: 'V8Worker' };
  }
  if (name.startsWith('v8:Prof'))
    return { kind: "V8's CPU profiler", name: `V8's CPU profiler (thread ${name})` };
  const isPool = name === 'node' || name === 'libuv-worker';
  return {
    kind: 'other threads: libuv, database writer, jobs',
    name: isPool ? "libuv's pool" : `thread ${name}`,
  };
}
