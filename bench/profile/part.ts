import { pathToFileURL } from 'node:url';
import { repository } from '../machine.js';
import type { CallNode } from '../process/child.js';

/** What a piece of CPU belongs to: the kind for a look, the name for a closer one. */
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

/** Of C++ that no call leads to: what comes from sockets before it reaches JavaScript. */
export const betweenCalls: Part = {
  kind: "Node's C++ and the kernel: TLS, HTTP/2 frames, sockets",
  name: 'C++ between calls',
};

/**
 * Of a call, when it is at the top. Native functions belong to who called them: their own names are
 * often wrong, for an addon's all enter through one function.
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

/** Of a thread that is not the main one, by what the kernel calls it. */
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
