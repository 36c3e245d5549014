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
  /** Ids of the live processes. */
  readonly live: readonly string[];
  /** Ids of dead processes, whose rows are to be deleted. */
  readonly dead: readonly string[];
}

/**
 * Pause after a reading of the streams of users at the limit, as a multiple of the time that the reading took.
 * So reading takes at most 5 % of the time.
 */
const pausePerReading = 19;
const deletedBatchesMax = 10;

/**
 * Exchanges the open streams between the processes that share a database. Writes the streams of this process,
 * reads the streams of users who have reached the limit, and deletes the streams of dead processes. The work of
 * one exchange is bounded, and the next exchange continues it.
 */
export class ClusterStreams {
  readonly #parts: ClusterStreamsParts;
  readonly #rows: StreamRows;
  /** The last exchange, running or settled. Never rejects. */
  #lastExchange: Promise<void> = Promise.resolve();
  #isExchanging = false;
  #isUnavailable = false;
  /** Time at which the streams of users at the limit are read again, by `monotonicClock`. */
  #readAgainAt = Number.NEGATIVE_INFINITY;

  constructor(parts: ClusterStreamsParts, processId: string) {
    this.#parts = parts;
    const { table, registry } = parts;
    this.#rows = new StreamRows(table, () => registry.streams, processId);
  }

  /** Makes the next exchange write all rows again under another process id, see `StreamRows`. */
  changeProcessId(processId: string): void {
    this.#rows.changeProcessId(processId);
  }

  /** Starts an exchange, unless an earlier exchange is still running. Never throws. */
  start(others: OtherProcesses): void {
    if (this.#isExchanging) return;
    this.#isExchanging = true;
    void this.#exchangeSafely(others);
  }

  /** Exchanges once, after a running exchange. Rejects if the database fails. */
  exchange(others: OtherProcesses): Promise<void> {
    const exchange = this.#lastExchange.then(() => this.#runSteps(others));
    this.#lastExchange = exchange.catch(() => {});
    return exchange;
  }

  /** Resolves when no exchange is running. Never rejects. */
  async idle(): Promise<void> {
    await this.#lastExchange;
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

  /** Runs every step, even after a step has failed. Then rejects with the first failure. */
  async #runSteps({ live, dead }: OtherProcesses): Promise<void> {
    const failures: unknown[] = [];
    const steps = [
      () => this.#rows.sync(),
      () => this.#readRemoteStreams(live), // After `sync`, because the read counts the rows of this process, too.
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
