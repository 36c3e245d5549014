import { randomBytes } from 'node:crypto';
import { type Database, sql, UniqueViolation } from '../db/database.js';
import type { Logger } from '../logging/logger.js';
import { type Registry, replacedRetryMs } from './registry.js';
import type { StreamTokens } from './stream-token.js';
import type { UserCount } from './user-count.js';

export interface ClusterSyncParts {
  readonly db: Database;
  readonly registry: Registry;
  readonly userCount: UserCount;
  readonly tokens: StreamTokens;
  readonly log: Logger;
  readonly wallClock: () => number;
}

/** A process that has not been heard of for so long is not counted any more. */
const silentMs = 10_000;
/** And after this its row goes. */
const forgottenMs = 60_000;
/** Clocks of processes differ, and rows become visible a little after their time. */
const overlapMs = 5000;
const heartbeatMs = 1000;

/**
 * What the processes on one database have to tell each other besides events: how many users each has
 * (`count` is their sum), and that a stream token was opened elsewhere, so that its older stream
 * ends. Each keeps a row with its heartbeat in `processes`.
 */
export class ClusterSync {
  readonly #parts: ClusterSyncParts;
  readonly #id = randomBytes(8).toString('hex');
  #timer: NodeJS.Timeout | undefined;
  #heardUntil: number;
  #beating: Promise<void> = Promise.resolve();
  #isOpen = true;
  #isAway = false;

  private constructor(parts: ClusterSyncParts) {
    this.#parts = parts;
    this.#heardUntil = parts.wallClock();
  }

  /** Announces this process once, then every second. */
  static async start(parts: ClusterSyncParts): Promise<ClusterSync> {
    const clusterSync = new ClusterSync(parts);
    await clusterSync.heartbeat();
    clusterSync.#wait();
    return clusterSync;
  }

  /** Says how many users are here, and hears of the others. Rejects when the database does. */
  async heartbeat(): Promise<void> {
    const { userCount, wallClock } = this.#parts;
    const now = wallClock();
    await this.#announce(now);
    userCount.remoteUsers = await this.#countRemoteUsers(now);
    await this.#hearTakeovers(now);
  }

  /** Takes this process off the list. Twice is fine; never rejects: others notice its silence, too. */
  async close(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    clearTimeout(this.#timer);
    await this.#beating;
    const { db, log } = this.#parts;
    try {
      await db.execute(sql`delete from processes where id = ${this.#id}`);
    } catch (cause) {
      log.warn({ cause }, 'process could not be deregistered');
    }
  }

  #wait(): void {
    this.#timer = setTimeout(() => {
      this.#beating = this.#beatSafely();
    }, heartbeatMs).unref();
  }

  /** Never rejects: while the database is away, what was last heard stays. */
  async #beatSafely(): Promise<void> {
    try {
      await this.heartbeat();
      this.#isAway = false;
    } catch (cause) {
      if (!this.#isAway) this.#parts.log.warn({ cause }, 'cluster state could not be read');
      this.#isAway = true; // One line for one outage.
    }
    if (this.#isOpen) this.#wait();
  }

  async #announce(now: number): Promise<void> {
    const { db, registry } = this.#parts;
    const { users } = registry;
    const isKnown = await db.execute(
      sql`update processes set users = ${users}, seen_at = ${now} where id = ${this.#id}`,
    );
    if (isKnown > 0) return;
    try {
      await db.execute(
        sql`insert into processes (id, users, seen_at) values (${this.#id}, ${users}, ${now})`,
      );
    } catch (cause) {
      if (!(cause instanceof UniqueViolation)) throw cause; // The update's answer was lost.
    }
  }

  async #countRemoteUsers(now: number): Promise<number> {
    const { db } = this.#parts;
    await db.execute(sql`delete from processes where seen_at < ${now - forgottenMs}`);
    const others = await db.query<{ id: string; users: number }>(
      sql`select id, users from processes where seen_at >= ${now - silentMs}`,
    );
    return others.filter(({ id }) => id !== this.#id).reduce((sum, { users }) => sum + users, 0);
  }

  async #hearTakeovers(now: number): Promise<void> {
    const { registry, tokens } = this.#parts;
    for (const tokenHash of await tokens.takenSince(this.#heardUntil - overlapMs)) {
      const connection = registry.findByToken(tokenHash);
      // Several takeovers may have followed one another: the token's row knows who has it now.
      if (connection === undefined || (await tokens.isHolder(tokenHash, connection.id))) continue;
      connection.close('replaced', { retryMs: replacedRetryMs });
    }
    this.#heardUntil = now;
  }
}
