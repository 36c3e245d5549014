import { has } from '../machine.js';
import type { CallNode, Child } from '../process/child.js';
import { type ThreadTime, threadsBetween, threadTimes } from '../process/threads.js';
import { type Watched, watch } from '../process/watch.js';
import { type NativeCounts, Perf } from './perf.js';

/** A measured piece of work, and all that is known of where its CPU went. */
export interface ProfiledRun extends Watched {
  readonly calls: readonly CallNode[];
  readonly main: ThreadTime;
  /** All threads but the main one. */
  readonly others: readonly ThreadTime[];
  /** By `perf`, where it is installed. */
  readonly native: NativeCounts;
}

const hasPerf = has('perf');

/** Does what `watch` does with V8's profiler on. `work` answers how many operations it did. */
export async function profileRun(child: Child, work: () => Promise<number>): Promise<ProfiledRun> {
  await child.startProfile();
  const perf = hasPerf ? await Perf.start(child.pid) : undefined;
  const before = threadTimes(child.pid);
  const watched = await watch(child, work);
  const threads = threadsBetween(before, threadTimes(child.pid));
  const native = (await perf?.stop()) ?? {};
  const calls = await child.stopProfile();
  const main = threads.get(child.pid);
  if (main === undefined) throw new Error(`Cannot profile: process ${child.pid} is gone`);
  threads.delete(child.pid);
  return { ...watched, calls, native, main, others: [...threads.values()] };
}
