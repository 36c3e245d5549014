import { randomBytes } from 'node:crypto';
import { type Database, sql, UniqueViolation } from '../db/database.js';
import type { Log } from '../logging/log.js';
import { type Registry, replacedRetryMs } from './registry.js';
import type { StreamTokens } from './stream-token.js';
import type { UserCount } from './user-count.js';

export interface NeighboursParts {
  readonly db: Database;
  readonly registry: Registry;
  readonly userCount: UserCount;
  readonly tokens: StreamTokens;
  readonly log: Log;
  readonly clock: () => number;
}

/** A process that has not been heard of for so long is not counted any more. */
const silentMs = 10_000;
/** And after this its row goes. */
const forgottenMs = 60_000;
/** Clocks of processes differ, and rows become visible a little after their time. */
const overlapMs = 5000;
const beatMs = 1000;

/**
 * What the processes on one database have to tell each other besides events: how many users each has
 * (`count` is their sum), and that a stream token was opened elsewhere, so that its older stream
 * ends. Each keeps a row with its heartbeat in `processes`.
 */
export class Neighbours {
  readonly #parts: NeighboursParts;
  readonly #id = randomBytes(8).toString('hex');
  #timer: NodeJS.Timeout | undefined;
  #heardUntil: number;
  #beating: Promise<void> = Promise.resolve();
  #isOpen = true;
  #isAway = false;

  private constructor(parts: NeighboursParts) {
    this.#parts = parts;
    this.#heardUntil = parts.clock();
  }

  /** Announces this process once, then every second. */
  static async start(parts: NeighboursParts): Promise<Neighbours> {
    const neighbours = new Neighbours(parts);
    await neighbours.beat();
    neighbours.#wait();
    return neighbours;
  }

  /** Says how many users are here, and hears of the others. Rejects when the database does. */
  async beat(): Promise<void> {
    const { userCount, clock } = this.#parts;
    const now = clock();
    await this.#announce(now);
    userCount.usersElsewhere = await this.#usersElsewhere(now);
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
      log.warn({ cause }, 'other processes could not be told of the end of this one');
    }
  }

  #wait(): void {
    this.#timer = setTimeout(() => {
      this.#beating = this.#beatSafely();
    }, beatMs).unref();
  }

  /** Never rejects: while the database is away, what was last heard stays. */
  async #beatSafely(): Promise<void> {
    try {
      await this.beat();
      this.#isAway = false;
    } catch (cause) {
      if (!this.#isAway) this.#parts.log.warn({ cause }, 'other processes cannot be heard');
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

  async #usersElsewhere(now: number): Promise<number> {
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
      const connection = registry.onToken(tokenHash);
      // Several takeovers may have followed one another: the token's row knows who has it now.
      if (connection === undefined || (await tokens.isHolder(tokenHash, connection.id))) continue;
      connection.close('replaced', { retryMs: replacedRetryMs });
    }
    this.#heardUntil = now;
  }
}
