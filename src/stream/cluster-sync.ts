import { randomBytes } from 'node:crypto';
import { type Database, sql, UniqueViolation } from '../db/database.js';
import type { Logger } from '../logging/logger.js';
import type { Registry } from './registry.js';
import type { UserCount } from './user-count.js';

export interface ClusterSyncParts {
  readonly db: Database;
  readonly registry: Registry;
  readonly userCount: UserCount;
  readonly log: Logger;
  /** The time of the database, the same for all processes (ms). */
  readonly wallClock: () => number;
}

/** A process without a heartbeat for this long is not counted. */
const silentMs = 10_000;
/** A process without a heartbeat for this long is deleted from `processes`. */
const deletedAfterMs = 60_000;
const heartbeatMs = 1000;

/**
 * Exchanges the numbers of connected users between the processes that share a database. The `count` event
 * contains their sum. Each process writes its count and the time of its heartbeat to its row of `processes`.
 */
export class ClusterSync {
  readonly #parts: ClusterSyncParts;
  readonly #id = randomBytes(8).toString('hex');
  #timer: NodeJS.Timeout | undefined;
  #activeHeartbeat: Promise<void> = Promise.resolve();
  #isOpen = true;
  #isUnavailable = false;

  private constructor(parts: ClusterSyncParts) {
    this.#parts = parts;
  }

  /**
   * Registers this process with a heartbeat, then sends a heartbeat every second. Rejects if the first
   * heartbeat fails.
   */
  static async start(parts: ClusterSyncParts): Promise<ClusterSync> {
    const clusterSync = new ClusterSync(parts);
    await clusterSync.heartbeat();
    clusterSync.#scheduleHeartbeat();
    return clusterSync;
  }

  /**
   * Writes the user count of this process, deletes the rows of dead processes, and reads the counts of the
   * others. Rejects if the database fails.
   */
  async heartbeat(): Promise<void> {
    const { userCount, wallClock } = this.#parts;
    const now = wallClock();
    await this.#announce(now);
    await this.#deleteDeadProcesses(now);
    userCount.remoteUserCount = await this.#countRemoteUsers(now);
  }

  /** Deregisters this process. Idempotent. Never rejects, because the row expires anyway. */
  async close(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    clearTimeout(this.#timer);
    await this.#activeHeartbeat;
    const { db, log } = this.#parts;
    try {
      await db.execute(sql`delete from processes where id = ${this.#id}`);
    } catch (cause) {
      log.warn({ cause }, 'process could not be deregistered');
    }
  }

  #scheduleHeartbeat(): void {
    this.#timer = setTimeout(() => {
      this.#activeHeartbeat = this.#heartbeatSafely();
    }, heartbeatMs).unref();
  }

  /** Never rejects. While the database is unavailable, the last known count is kept. */
  async #heartbeatSafely(): Promise<void> {
    try {
      await this.heartbeat();
      this.#isUnavailable = false;
    } catch (cause) {
      if (!this.#isUnavailable)
        this.#parts.log.warn({ cause }, 'user counts could not be exchanged');
      this.#isUnavailable = true; // Logged once per outage.
    }
    if (this.#isOpen) this.#scheduleHeartbeat();
  }

  async #announce(now: number): Promise<void> {
    const { db, registry } = this.#parts;
    const users = registry.userCount;
    const updatedRows = await db.execute(
      sql`update processes set users = ${users}, seen_at = ${now} where id = ${this.#id}`,
    );
    if (updatedRows > 0) return;
    try {
      await db.execute(
        sql`insert into processes (id, users, seen_at) values (${this.#id}, ${users}, ${now})`,
      );
    } catch (cause) {
      if (!(cause instanceof UniqueViolation)) throw cause; // An earlier insert, of which no answer arrived, was committed after the update.
    }
  }

  async #deleteDeadProcesses(now: number): Promise<void> {
    await this.#parts.db.execute(
      sql`delete from processes where seen_at < ${now - deletedAfterMs}`,
    );
  }

  async #countRemoteUsers(now: number): Promise<number> {
    const rows = await this.#parts.db.query<{ id: string; users: number }>(
      sql`select id, users from processes where seen_at >= ${now - silentMs}`,
    );
    return rows.filter(({ id }) => id !== this.#id).reduce((sum, { users }) => sum + users, 0);
  }
}
