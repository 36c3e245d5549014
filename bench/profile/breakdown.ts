import type { CallNode } from '../process/child.js';
import { betweenCalls, getPart, getThreadPart, type Part } from './part.js';
import type { ProfiledRun } from './profiled-run.js';

/** A part and its CPU per operation. */
export interface Share extends Part {
  readonly micros: number;
}

/**
 * Splits the CPU of an operation into parts, which add up to all of it.
 *
 * V8's samples tell which calls ran on the main thread, and the kernel how long it ran. V8's "idle"
 * includes Node's C++ that reads sockets, which runs in the same phase of the event loop. So a
 * sample stands for its share of the time in which the thread ran or slept, and the CPU that the
 * samples of calls do not cover is that C++.
 */
export function buildBreakdown(window: ProfiledRun): Share[] {
  const { main, others, operations } = window;
  const sums = new Map<string, { part: Part; micros: number }>();
  const add = (part: Part, micros: number) => {
    const key = `${part.kind} ${part.name}`;
    const sum = sums.get(key) ?? { part, micros: 0 };
    sums.set(key, { part, micros: sum.micros + micros });
  };
  const each = microsPerSample(window);
  let left = main.cpu;
  walk(window.calls, (node, caller) => {
    const part = getPart(node.callFrame, caller);
    if (!isIdle(node)) {
      add(part, node.hitCount * each);
      left -= node.hitCount * each;
    }
    return part;
  });
  add(betweenCalls, left);
  for (const { name, cpu } of others) add(getThreadPart(name), cpu);
  return [...sums.values()].map(({ part, micros }) => ({ ...part, micros: micros / operations }));
}

/**
 * Returns the time of a sample, limited so that all calls together do not exceed the thread's CPU.
 */
export function microsPerSample({ calls, main, seconds }: ProfiledRun): number {
  const count = (nodes: readonly CallNode[]) => nodes.reduce((sum, one) => sum + one.hitCount, 0);
  const asleep = Math.max(0, seconds * 1e6 - main.cpu - main.waited);
  const busy = count(calls.filter((node) => !isIdle(node)));
  return Math.min((main.cpu + asleep) / count(calls), main.cpu / busy);
}

export function isIdle({ callFrame }: CallNode): boolean {
  return callFrame.functionName === '(idle)';
}

/** Visits the calls from the root down; each visit gets the result of its caller's. */
function walk(calls: readonly CallNode[], visit: (node: CallNode, caller: Part) => Part): void {
  const byId = new Map(calls.map((node) => [node.id, node]));
  const down = (node: CallNode, caller: Part) => {
    const part = visit(node, caller);
    for (const id of node.children ?? []) {
      const child = byId.get(id);
      if (child !== undefined) down(child, part);
    }
  };
  const [root] = calls;
  if (root !== undefined) down(root, betweenCalls);
}
