import { readdirSync, readFileSync } from 'node:fs';

/** The time of a thread, in microseconds. */
export interface ThreadTime {
  readonly name: string;
  readonly cpu: number;
  /** The part of `cpu` in the kernel, at its resolution of 10 ms. */
  readonly kernel: number;
  /** Ready to run, but waiting for a core. */
  readonly waited: number;
}

/** Returns the threads of a process by id; that of the main thread is the pid. Linux only. */
export function threadTimes(pid: number): Map<number, ThreadTime> {
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

/** Returns the difference for each thread. Threads that ended in between are missing. */
export function threadsBetween(
  before: ReadonlyMap<number, ThreadTime>,
  after: ReadonlyMap<number, ThreadTime>,
): Map<number, ThreadTime> {
  const none = { cpu: 0, kernel: 0, waited: 0 };
  return new Map(
    [...after].map(([id, { name, cpu, kernel, waited }]) => {
      const old = before.get(id) ?? none;
      return [
        id,
        {
          name,
          cpu: cpu - old.cpu,
          kernel: kernel - old.kernel,
          waited: waited - old.waited,
        },
      ];
    }),
  );
}

/** Reads the times of a task. Spec: `man 5 proc`; scheduler/sched-stats of the kernel (ns). */
function readThreadTime(task: string): ThreadTime {
  const read = (name: string) => readFileSync(`${task}/${name}`, 'utf8').trim();
  const [cpu = 0, waited = 0] = read('schedstat').split(' ').map(Number);
  const [, afterName = ''] = read('stat').split(') ');
  const kernelTicks = Number(afterName.split(' ')[12]);
  const name = read('comm').replace(/^node-/, ''); // The prefix of Node 26.
  return {
    name,
    cpu: cpu / 1000,
    kernel: kernelTicks * 10_000,
    waited: waited / 1000,
  };
}
