import { type Database, list, sql, UniqueViolation } from '../db/database.js';

/** The users and streams of a process without a heartbeat for this long do not count. */
const silentMs = 10_000;
/** A process without a heartbeat for this long is dead: its rows are deleted. */
const deadAfterMs = 60_000;
/** `seen_at` of a dead process. */
const deadSeenAt = 0;
const deadPerHeartbeatMax = 100;

export interface LiveProcess {
  readonly id: string;
  /** Number of users with a stream in the process. */
  readonly users: number;
}

/** The table `processes`, which has a row for each process on this database. */
export class ProcessTable {
  readonly #db: Database;

  constructor(db: Database) {
    this.#db = db;
  }

  /** Stores a heartbeat. Returns false if the process has no row or is marked as dead. */
  async update({ id, users }: LiveProcess, now: number): Promise<boolean> {
    const updatedRows = await this.#db.execute(
      sql`update processes set users = ${users}, seen_at = ${now}
        where id = ${id} and seen_at > ${deadSeenAt}`,
    );
    return updatedRows > 0;
  }

  async insert({ id, users }: LiveProcess, now: number): Promise<void> {
    try {
      await this.#db.execute(
        sql`insert into processes (id, users, seen_at) values (${id}, ${users}, ${now})`,
      );
    } catch (cause) {
      // A violation means that an earlier insert, whose response was lost, was committed after `update`.
      if (!(cause instanceof UniqueViolation)) throw cause;
    }
  }

  /** Returns the processes that had a heartbeat within the last 10 s. */
  findLive(now: number): Promise<LiveProcess[]> {
    return this.#db.query(sql`select id, users from processes where seen_at >= ${now - silentMs}`);
  }

  /**
   * Marks the processes without a heartbeat for 60 s as dead. Their next `update` returns false. Returns the
   * ids of up to 100 dead processes.
   */
  async markDead(now: number): Promise<readonly string[]> {
    await this.#db.execute(
      sql`update processes set seen_at = ${deadSeenAt}
        where seen_at > ${deadSeenAt} and seen_at < ${now - deadAfterMs}`,
    );
    const rows = await this.#db.query<{ id: string }>(
      sql`select id from processes where seen_at = ${deadSeenAt} order by seen_at limit ${deadPerHeartbeatMax}`,
    );
    return rows.map(({ id }) => id);
  }

  async delete(ids: readonly string[]): Promise<void> {
    await this.#db.execute(sql`delete from processes where id in (${list(ids)})`);
  }
}
