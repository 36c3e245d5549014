import { isInstalled } from '../machine.js';
import type { CallNode, Child } from '../process/child.js';
import { type ThreadTime, threadsBetween, threadTimes } from '../process/threads.js';
import { measureServer, type ServerUsage } from '../process/watch.js';
import { type NativeCounts, Perf } from './perf.js';

/** The usage of a server during a piece of work, and where its CPU was spent. */
export interface ProfiledRun extends ServerUsage {
  readonly calls: readonly CallNode[];
  readonly mainThread: ThreadTime;
  /** All threads but the main one. */
  readonly otherThreads: readonly ThreadTime[];
  /** Samples of `perf`; empty if `perf` is not installed. */
  readonly nativeCounts: NativeCounts;
}

const hasPerf = isInstalled('perf');

/**
 * Runs `measureServer` with V8's profiler and, if installed, `perf`. `work` returns the number of
 * operations.
 */
export async function profileRun(child: Child, work: () => Promise<number>): Promise<ProfiledRun> {
  await child.startProfile();
  const perf = hasPerf ? await Perf.start(child.pid) : undefined;
  const before = threadTimes(child.pid);
  const usage = await measureServer(child, work);
  const threads = threadsBetween(before, threadTimes(child.pid));
  const nativeCounts = (await perf?.stop()) ?? {};
  const calls = await child.stopProfile();
  const mainThread = threads.get(child.pid);
  if (mainThread === undefined) throw new Error(`Cannot profile: process ${child.pid} has ended`);
  threads.delete(child.pid);
  return { ...usage, calls, nativeCounts, mainThread, otherThreads: [...threads.values()] };
}
