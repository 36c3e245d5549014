import { randomBytes } from 'node:crypto';
import type { Database } from '../db/database.js';
import type { Logger } from '../logging/logger.js';
import { ClusterStreams, type OtherProcesses } from './open-streams/cluster-streams.js';
import type { OpenStream, OpenStreamQuery } from './open-streams/open-stream.js';
import { StreamTable } from './open-streams/stream-table.js';
import { ProcessTable } from './process-table.js';
import type { Registry } from './registry.js';
import type { UserCount } from './user-count.js';

export interface ClusterSyncParts {
  readonly db: Database;
  /** The same database with the share for requests, which must not use the share of background work. */
  readonly requestDb: Database;
  readonly registry: Registry;
  readonly userCount: UserCount;
  /** Maximum number of streams of a user, in all processes together. */
  readonly streamsPerUserMax: number;
  readonly log: Logger;
  /** The time of the database, the same for all processes (ms). */
  readonly wallClock: () => number;
  readonly monotonicClock: () => number;
}

const heartbeatMs = 1000;

/** Returns a new id of a process: 16 hex digits. */
export function createProcessId(): string {
  return randomBytes(8).toString('hex');
}

/**
 * Exchanges the numbers of connected users and the open streams between the processes that share a database.
 * The `count` event contains the sum of the numbers. Each process writes its number and the time of its
 * heartbeat to its row of `processes`, and its streams to `open_streams`.
 */
export class ClusterSync {
  readonly #parts: ClusterSyncParts;
  readonly #processes: ProcessTable;
  readonly #streamTable: StreamTable;
  readonly #streams: ClusterStreams;
  #id = createProcessId();
  #isRegistered = false;
  #timer: NodeJS.Timeout | undefined;
  #activeHeartbeat: Promise<void> = Promise.resolve();
  #isOpen = true;
  #isUnavailable = false;

  private constructor(parts: ClusterSyncParts) {
    this.#parts = parts;
    this.#processes = new ProcessTable(parts.db);
    this.#streamTable = new StreamTable(parts.db);
    const tables = { processes: this.#processes, table: this.#streamTable };
    this.#streams = new ClusterStreams({ ...parts, ...tables }, this.#id);
  }

  /**
   * Registers this process with a heartbeat, then sends a heartbeat every second. Rejects if the first
   * heartbeat fails.
   */
  static async start(parts: ClusterSyncParts): Promise<ClusterSync> {
    const clusterSync = new ClusterSync(parts);
    await clusterSync.#exchangeUsers();
    clusterSync.#scheduleHeartbeat();
    return clusterSync;
  }

  /** Exchanges numbers of users, then open streams. Rejects if the database fails. */
  async heartbeat(): Promise<void> {
    await this.#streams.exchange(await this.#exchangeUsers());
  }

  /** Returns a page of the open streams of all live processes, as of their last heartbeats. */
  async listStreams(query: OpenStreamQuery): Promise<readonly OpenStream[]> {
    const { requestDb, wallClock } = this.#parts;
    const live = await new ProcessTable(requestDb).findLive(wallClock());
    const ids = live.map(({ id }) => id);
    return new StreamTable(requestDb).list(ids, query);
  }

  /** Deregisters this process. Idempotent. Never rejects, because the rows expire anyway. */
  async close(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    clearTimeout(this.#timer);
    await this.#activeHeartbeat;
    await this.#streams.idle();
    try {
      await this.#streams.deleteAll();
      // Last: while this row exists, other processes delete the streams that this process could not delete.
      await this.#processes.delete([this.#id]);
    } catch (cause) {
      this.#parts.log.warn({ cause }, 'process could not be deregistered');
    }
  }

  #scheduleHeartbeat(): void {
    this.#timer = setTimeout(() => {
      this.#activeHeartbeat = this.#heartbeatSafely();
    }, heartbeatMs).unref();
  }

  /**
   * Sends a heartbeat and schedules the next. Never rejects. While the database is unavailable, the last known
   * count is kept. Does not wait for the exchange of streams, because other processes take a process whose
   * heartbeats are late for dead.
   */
  async #heartbeatSafely(): Promise<void> {
    try {
      this.#streams.start(await this.#exchangeUsers());
      this.#isUnavailable = false;
    } catch (cause) {
      if (!this.#isUnavailable)
        this.#parts.log.warn({ cause }, 'user counts could not be exchanged');
      this.#isUnavailable = true; // Logged once per outage.
    }
    if (this.#isOpen) this.#scheduleHeartbeat();
  }

  /** Sends a heartbeat with the number of users, and reads the heartbeats of other processes. */
  async #exchangeUsers(): Promise<OtherProcesses> {
    const { userCount, wallClock } = this.#parts;
    const now = wallClock();
    await this.#announce(now);
    const dead = await this.#processes.markDead(now);
    const others = (await this.#processes.findLive(now)).filter(({ id }) => id !== this.#id);
    userCount.remoteUserCount = others.reduce((sum, { users }) => sum + users, 0);
    return { live: others.map(({ id }) => id), dead };
  }

  async #announce(now: number): Promise<void> {
    const users = this.#parts.registry.userCount;
    if (await this.#processes.update({ id: this.#id, users }, now)) return;
    if (this.#isRegistered) this.#changeId(); // Others have taken this process for dead.
    await this.#processes.insert({ id: this.#id, users }, now);
    this.#isRegistered = true;
    this.#parts.log.info({ processId: this.#id }, 'process registered');
  }

  #changeId(): void {
    this.#id = createProcessId();
    this.#isRegistered = false;
    this.#streams.changeProcessId(this.#id);
  }
}
