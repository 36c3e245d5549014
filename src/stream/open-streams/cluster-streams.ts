import type { Logger } from '../../logging/logger.js';
import type { ProcessTable } from '../process-table.js';
import type { Registry } from '../registry.js';
import { StreamRows } from './stream-rows.js';
import type { StreamTable } from './stream-table.js';

export interface ClusterStreamsParts {
  readonly table: StreamTable;
  readonly processes: ProcessTable;
  readonly registry: Registry;
  readonly log: Logger;
  /** Maximum number of streams of a user, in all processes together. */
  readonly streamsPerUserMax: number;
  readonly monotonicClock: () => number;
}

/** The other processes, as of a heartbeat. */
export interface OtherProcesses {
  /** Ids of the live ones. */
  readonly live: readonly string[];
  /** Ids of those whose rows are to be deleted. */
  readonly dead: readonly string[];
}

/** The streams of users over the limit are read so rarely that reading takes at most 5 % of the time. */
const pausePerReading = 19;
const deletedBatchesMax = 10;

/**
 * Exchanges the open streams between the processes that share a database: writes those of this process, reads
 * those of the users who have reached the limit, and deletes those of dead processes. The work of one
 * exchange is bounded; the next one continues it.
 */
export class ClusterStreams {
  readonly #parts: ClusterStreamsParts;
  readonly #rows: StreamRows;
  /** The last exchange, running or settled. Never rejects. */
  #last: Promise<void> = Promise.resolve();
  #isExchanging = false;
  #isUnavailable = false;
  /** When the streams of users at the limit are read again, by `monotonicClock`. */
  #readAgainAt = Number.NEGATIVE_INFINITY;

  constructor(parts: ClusterStreamsParts, processId: string) {
    this.#parts = parts;
    const { table, registry } = parts;
    this.#rows = new StreamRows(table, () => registry.streams, processId);
  }

  /** See `StreamRows`. */
  changeProcessId(processId: string): void {
    this.#rows.changeProcessId(processId);
  }

  /** Starts an exchange, unless the one that was started before is still running. Never throws. */
  start(others: OtherProcesses): void {
    if (this.#isExchanging) return;
    this.#isExchanging = true;
    void this.#exchangeSafely(others);
  }

  /** Exchanges once, after a running exchange. Rejects if the database fails. */
  exchange(others: OtherProcesses): Promise<void> {
    const exchange = this.#last.then(() => this.#runSteps(others));
    this.#last = exchange.catch(() => {});
    return exchange;
  }

  /** Resolves when no exchange is running. Never rejects. */
  async idle(): Promise<void> {
    await this.#last;
  }

  /** Deletes the rows of this process. Rejects if the database fails. */
  deleteAll(): Promise<void> {
    return this.#rows.deleteAll();
  }

  async #exchangeSafely(others: OtherProcesses): Promise<void> {
    try {
      await this.exchange(others);
      this.#isUnavailable = false;
    } catch (cause) {
      if (!this.#isUnavailable)
        this.#parts.log.warn({ cause }, 'open streams could not be exchanged, retrying');
      this.#isUnavailable = true; // Logged once per outage.
    }
    this.#isExchanging = false;
  }

  /** Runs every step, also after one has failed, and then rejects with the first failure. */
  async #runSteps({ live, dead }: OtherProcesses): Promise<void> {
    const failures: unknown[] = [];
    const steps = [
      () => this.#rows.sync(),
      () => this.#readRemoteStreams(live), // After `sync`, because it counts the rows of this process, too.
      () => this.#deleteDead(dead),
    ];
    for (const step of steps) await step().catch((cause: unknown) => failures.push(cause));
    if (failures.length > 0) throw failures[0];
  }

  async #readRemoteStreams(others: readonly string[]): Promise<void> {
    const { table, registry, streamsPerUserMax, monotonicClock } = this.#parts;
    const startedAt = monotonicClock();
    if (others.length > 0 && startedAt < this.#readAgainAt) return;
    const streams =
      others.length === 0 ? [] : await table.findRemoteAtLimit(streamsPerUserMax, others);
    registry.remoteStreams.set(streams);
    const endedAt = monotonicClock();
    this.#readAgainAt = endedAt + pausePerReading * (endedAt - startedAt);
  }

  async #deleteDead(dead: readonly string[]): Promise<void> {
    const { table, processes } = this.#parts;
    if (dead.length === 0) return;
    for (let batch = 1; batch <= deletedBatchesMax; batch += 1)
      if (!(await table.deleteBatchByProcesses(dead))) return processes.delete(dead);
  }
}
