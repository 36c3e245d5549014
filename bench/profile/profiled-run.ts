import { isInstalled } from '../machine.js';
import type { CallNode, Child } from '../process/child.js';
import { measureServer, type ServerUsage } from '../process/server-usage.js';
import { readThreadTimes, subtractThreadTimes, type ThreadTime } from '../process/threads.js';
import { type NativeCounts, Perf } from './perf.js';

/** The resources that a server used during a piece of work, and which code used its CPU time. */
export interface ProfiledRun extends ServerUsage {
  /** The call tree of the main thread, root first. */
  readonly calls: readonly CallNode[];
  readonly mainThread: ThreadTime;
  /** All threads but the main one. */
  readonly otherThreads: readonly ThreadTime[];
  /** Samples of `perf`; empty if `perf` is not installed or has no permission. */
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
  const before = readThreadTimes(child.pid);
  const usage = await measureServer(child, work);
  const threads = subtractThreadTimes(before, readThreadTimes(child.pid));
  const nativeCounts = (await perf?.stop()) ?? {};
  const calls = await child.stopProfile();
  const mainThread = threads.get(child.pid);
  if (mainThread === undefined) throw new Error(`Cannot profile: process ${child.pid} has ended`);
  threads.delete(child.pid);
  return { ...usage, calls, nativeCounts, mainThread, otherThreads: [...threads.values()] };
}
