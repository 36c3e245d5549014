import type { Job } from './job.js';
import type { LaneQueue } from './lane.js';
import type { WorkerSupervisor } from './worker-supervisor.js';

export interface LaneState {
  readonly queued: number;
  readonly running: number;
  readonly estimatedWaitMs: number;
}

/** Sums over all lanes; `estimatedWaitMs` is the maximum. */
export interface PoolState extends LaneState {
  /** Number of threads that take jobs. */
  readonly threads: number;
  /** Number of thread crashes since the start. */
  readonly crashes: number;
  /**
   * False when the pool is closed, no thread is ready, more than 5 threads crashed within the last
   * minute, or a job has run for more than 30 s.
   */
  readonly healthy: boolean;
  readonly lanes: Readonly<Record<string, LaneState>>;
}

const longRunningMs = 30_000;

/** Returns the state of a pool. `supervisor` is undefined when the pool is closed. */
export function getPoolState(
  lanes: ReadonlyMap<string, LaneQueue<Job>>,
  supervisor: WorkerSupervisor<Job> | undefined,
  now: number,
): PoolState {
  const threads = supervisor?.ready.size ?? 0;
  const statesByName = [...lanes].map(([name, lane]) => {
    const { queued, running } = lane;
    return [name, { queued, running, estimatedWaitMs: lane.estimatedWaitMs(threads) }] as const;
  });
  const states = statesByName.map(([, lane]) => lane);
  return {
    threads,
    crashes: supervisor?.crashes ?? 0,
    healthy:
      supervisor !== undefined &&
      threads > 0 &&
      !supervisor.isFailing &&
      !hasLongRunningJob(supervisor, now),
    queued: states.reduce((sum, { queued }) => sum + queued, 0),
    running: states.reduce((sum, { running }) => sum + running, 0),
    estimatedWaitMs: Math.max(0, ...states.map(({ estimatedWaitMs }) => estimatedWaitMs)),
    lanes: Object.fromEntries(statesByName),
  };
}

function hasLongRunningJob(supervisor: WorkerSupervisor<Job>, now: number): boolean {
  const jobs = [...supervisor.ready].flatMap(({ running }) => [...running.values()]);
  return jobs.some(({ startedAt }) => now - startedAt > longRunningMs);
}
