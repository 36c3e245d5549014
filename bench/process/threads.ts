import { readdirSync, readFileSync } from 'node:fs';

/** The times that a thread has run, and has waited for a core. */
export interface ThreadTime {
  readonly name: string;
  readonly cpuMicros: number;
  /** The part of `cpuMicros` that was spent in the kernel, in steps of 10 ms. */
  readonly kernelMicros: number;
  /** Time in which the thread was ready to run, but had no core. */
  readonly waitedMicros: number;
}

/** Returns the times of a process's threads by thread id. The id of the main thread is `pid`. Linux only. */
export function readThreadTimes(pid: number): Map<number, ThreadTime> {
  const tasks = `/proc/${pid}/task`;
  const times = new Map<number, ThreadTime>();
  for (const id of readdirSync(tasks)) {
    try {
      times.set(Number(id), readThreadTime(`${tasks}/${id}`));
    } catch {
      // The thread has ended.
    }
  }
  return times;
}

/**
 * Returns the times of each thread between two results of `readThreadTimes`. Omits threads that ended in
 * between.
 */
export function subtractThreadTimes(
  before: ReadonlyMap<number, ThreadTime>,
  after: ReadonlyMap<number, ThreadTime>,
): Map<number, ThreadTime> {
  const zeroTimes = { cpuMicros: 0, kernelMicros: 0, waitedMicros: 0 };
  return new Map(
    [...after].map(([id, { name, cpuMicros, kernelMicros, waitedMicros }]) => {
      const earlier = before.get(id) ?? zeroTimes;
      return [
        id,
        {
          name,
          cpuMicros: cpuMicros - earlier.cpuMicros,
          kernelMicros: kernelMicros - earlier.kernelMicros,
          waitedMicros: waitedMicros - earlier.waitedMicros,
        },
      ];
    }),
  );
}

/**
 * Reads the times of the thread with the folder `task`. Spec: `man 5 proc` (`stat`, in ticks of 10 ms);
 * scheduler/sched-stats in the kernel's documentation (`schedstat`, in nanoseconds).
 */
function readThreadTime(task: string): ThreadTime {
  const read = (name: string) => readFileSync(`${task}/${name}`, 'utf8').trim();
  const [cpuNanos = 0, waitedNanos = 0] = read('schedstat').split(' ').map(Number);
  const [, afterName = ''] = read('stat').split(') ');
  const kernelTicks = Number(afterName.split(' ')[12]); // The field `stime`.
  const name = read('comm').replace(/^node-/, ''); // Node 26 adds this prefix.
  return {
    name,
    cpuMicros: cpuNanos / 1000,
    kernelMicros: kernelTicks * 10_000,
    waitedMicros: waitedNanos / 1000,
  };
}
