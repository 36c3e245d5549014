import type { LaneQueue } from './lane.js';

/** A job on its way: waiting in its lane, or started on a thread. */
export interface Job {
  readonly id: number;
  readonly name: string;
  readonly input: unknown;
  readonly lane: LaneQueue<Job>;
  readonly owner: string | undefined;
  readonly resolve: (value: unknown) => void;
  readonly reject: (cause: unknown) => void;
  /** Takes the listener off the signal, once the job does not wait any more. */
  removeAbortListener: () => void;
  /** By the pool's clock. 0 while it waits. */
  startedAt: number;
}
