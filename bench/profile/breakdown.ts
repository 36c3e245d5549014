import type { CallNode } from '../process/child.js';
import { betweenCalls, type CpuOrigin, getCallOrigin, getThreadOrigin } from './cpu-origin.js';
import type { ProfiledRun } from './profiled-run.js';

/** The CPU time per operation that one origin used. */
export interface Share extends CpuOrigin {
  readonly micros: number;
}

/**
 * Divides the CPU time of an operation by origin. The shares add up to the CPU time of all threads.
 *
 * V8's samples show which calls ran on the main thread, and the kernel reports how long the thread
 * ran. V8 counts Node's C++ that reads sockets as "idle", because that C++ runs in the phase of the
 * event loop in which the thread also sleeps. So the samples alone do not show its CPU time. Each
 * sample stands for an equal share of the time in which the thread ran or slept. The CPU time of the
 * thread minus that of the sampled calls is the CPU time of the C++ (`betweenCalls`).
 */
export function buildBreakdown(run: ProfiledRun): Share[] {
  const { mainThread, otherThreads, operations } = run;
  const sums = new Map<string, { origin: CpuOrigin; micros: number }>();
  const add = (origin: CpuOrigin, micros: number) => {
    const key = `${origin.kind} ${origin.name}`;
    const sum = sums.get(key) ?? { origin, micros: 0 };
    sums.set(key, { origin, micros: sum.micros + micros });
  };
  const sampleMicros = getMicrosPerSample(run);
  let microsLeft = mainThread.cpuMicros;
  walk(run.calls, (node, caller) => {
    const origin = getCallOrigin(node.callFrame, caller);
    if (!isIdle(node)) {
      add(origin, node.hitCount * sampleMicros);
      microsLeft -= node.hitCount * sampleMicros;
    }
    return origin;
  });
  add(betweenCalls, microsLeft);
  for (const { name, cpuMicros } of otherThreads) add(getThreadOrigin(name), cpuMicros);
  return [...sums.values()].map(({ origin, micros }) => ({
    ...origin,
    micros: micros / operations,
  }));
}

/**
 * Returns the time that a sample stands for, limited so that all calls together do not exceed the CPU
 * time of the thread.
 */
export function getMicrosPerSample({ calls, mainThread, seconds }: ProfiledRun): number {
  const count = (nodes: readonly CallNode[]) => nodes.reduce((sum, one) => sum + one.hitCount, 0);
  const sleepMicros = Math.max(0, seconds * 1e6 - mainThread.cpuMicros - mainThread.waitedMicros);
  const busySamples = count(calls.filter((node) => !isIdle(node)));
  return Math.min(
    (mainThread.cpuMicros + sleepMicros) / count(calls),
    mainThread.cpuMicros / busySamples,
  );
}

export function isIdle({ callFrame }: CallNode): boolean {
  return callFrame.functionName === '(idle)';
}

/** Visits each call after its caller. Passes to `visit` the origin that it returned for the caller. */
function walk(
  calls: readonly CallNode[],
  visit: (node: CallNode, caller: CpuOrigin) => CpuOrigin,
): void {
  const byId = new Map(calls.map((node) => [node.id, node]));
  const visitTree = (node: CallNode, caller: CpuOrigin) => {
    const origin = visit(node, caller);
    for (const id of node.children ?? []) {
      const child = byId.get(id);
      if (child !== undefined) visitTree(child, origin);
    }
  };
  const [root] = calls;
  if (root !== undefined) visitTree(root, betweenCalls);
}
