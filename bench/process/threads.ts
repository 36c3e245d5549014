import { readdirSync, readFileSync } from 'node:fs';

/** What a thread has used, microseconds. */
export interface ThreadTime {
  readonly name: string;
  readonly cpu: number;
  /** Of its CPU, in steps of 10 ms: the kernel counts no finer. */
  readonly kernel: number;
  /** Ready to run, but not running: others had the cores. */
  readonly waited: number;
}

/** All threads of a process by their id, which for the main thread is that of the process. Linux only. */
export function threadTimes(pid: number): Map<number, ThreadTime> {
  const tasks = `/proc/${pid}/task`;
  const times = new Map<number, ThreadTime>();
  for (const id of readdirSync(tasks)) {
    try {
      times.set(Number(id), readThreadTime(`${tasks}/${id}`));
    } catch {
      // It has ended by now.
    }
  }
  return times;
}

/** What each thread has used in between. One that ended meanwhile is not told. */
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

/** Spec: `man 5 proc`, and the kernel's scheduler/sched-stats for the nanoseconds. */
function readThreadTime(task: string): ThreadTime {
  const read = (name: string) => readFileSync(`${task}/${name}`, 'utf8').trim();
  const [cpu = 0, waited = 0] = read('schedstat').split(' ').map(Number);
  const [, afterName = ''] = read('stat').split(') ');
  const kernelTicks = Number(afterName.split(' ')[12]);
  const name = read('comm').replace(/^node-/, ''); // As Node 26 begins them.
  return {
    name,
    cpu: cpu / 1000,
    kernel: kernelTicks * 10_000,
    waited: waited / 1000,
  };
}
