import type { LaneQueue } from './lane.js';

/** A job that is queued in its lane or running on a thread. */
export interface Job {
  readonly id: number;
  readonly name: string;
  readonly input: unknown;
  readonly lane: LaneQueue<Job>;
  /** See `RunOptions.owner`. */
  readonly owner: string | undefined;
  readonly resolve: (value: unknown) => void;
  readonly reject: (cause: unknown) => void;
  /** Removes the timer and the abort listener of the queue. Called when the job leaves the queue. */
  stopWaiting: () => void;
  /** Start time by the pool's clock; 0 while the job is queued. */
  startedAt: number;
}
