import { pathToFileURL } from 'node:url';
import { repository } from '../machine.js';
import type { CallNode } from '../process/child.js';

/** The origin of some CPU time: a coarse kind and a specific name. */
export interface Part {
  readonly kind: Kind;
  readonly name: string;
}

export type Kind =
  | "Node's C++ and the kernel: TLS, HTTP/2 frames, sockets"
  | "JavaScript of Herald's own, or its reference's"
  | 'JavaScript of Node'
  | 'JavaScript of packages'
  | 'garbage collection, main thread'
  | 'native code called by JavaScript'
  | "V8's helper threads: garbage collection, compiling"
  | 'other threads: libuv, database writer, jobs'
  | 'the profiler itself';

const native = 'native code called by JavaScript';
const home = pathToFileURL(repository).href;

/** The part of C++ outside all calls: socket input before it reaches JavaScript. */
export const betweenCalls: Part = {
  kind: "Node's C++ and the kernel: TLS, HTTP/2 frames, sockets",
  name: 'C++ between calls',
};

/**
 * Returns the part of a call on top of the stack. A native function is attributed to its caller:
 * its own name is often wrong, because all functions of an addon are entered through one.
 */
export function getPart({ functionName, url }: CallNode['callFrame'], caller: Part): Part {
  if (functionName === '(garbage collector)') {
    return { kind: 'garbage collection, main thread', name: 'garbage collection' };
  }
  if (functionName === '(program)' || functionName === '(root)') return betweenCalls;
  if (url === '') {
    return caller.kind === native ? caller : { kind: native, name: `native, by ${caller.name}` };
  }
  if (url.startsWith('node:')) return { kind: 'JavaScript of Node', name: url };
  const path = url.replace(home, '');
  const within = path.split('node_modules/').at(-1);
  if (within === undefined || within === path) {
    return { kind: "JavaScript of Herald's own, or its reference's", name: path };
  }
  const [scope = '', rest = ''] = within.split('/');
  const name = scope.startsWith('@') ? `${scope}/${rest}` : scope;
  return { kind: 'JavaScript of packages', name };
}

/** Returns the part of a thread other than the main one, by its name in the kernel. */
export function getThreadPart(name: string): Part {
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
