import { has } from '../machine.js';
import type { CallNode, Child } from '../process/child.js';
import { type ThreadTime, threadsBetween, threadTimes } from '../process/threads.js';
import { type Watched, watch } from '../process/watch.js';
import { type NativeCounts, Perf } from './perf.js';

/** A measured piece of work with all data about its CPU usage. */
export interface ProfiledRun extends Watched {
  readonly calls: readonly CallNode[];
  readonly main: ThreadTime;
  /** All threads but the main one. */
  readonly others: readonly ThreadTime[];
  /** Samples of `perf`; empty if it is not installed. */
  readonly native: NativeCounts;
}

const hasPerf = has('perf');

/** Runs `watch` with V8's profiler. `work` returns the number of operations. */
export async function profileRun(child: Child, work: () => Promise<number>): Promise<ProfiledRun> {
  await child.startProfile();
  const perf = hasPerf ? await Perf.start(child.pid) : undefined;
  const before = threadTimes(child.pid);
  const watched = await watch(child, work);
  const threads = threadsBetween(before, threadTimes(child.pid));
  const native = (await perf?.stop()) ?? {};
  const calls = await child.stopProfile();
  const main = threads.get(child.pid);
  if (main === undefined) throw new Error(`Cannot profile: process ${child.pid} has ended`);
  threads.delete(child.pid);
  return { ...watched, calls, native, main, others: [...threads.values()] };
}
