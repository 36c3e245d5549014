import { type Database, list, type Sql, sql, tuples } from '../db/database.js';
import type { AppendControlEntries } from '../event-log/open.js';
import type { Disconnect } from '../events/control-entry.js';

export interface DisconnectsOptions {
  readonly db: Database;
  readonly wallClock: () => number;
  readonly appendControlEntries: AppendControlEntries;
  /** SQL that selects the number of the newest entry of the event log. */
  readonly headSeqSql: Sql;
  /** Maximum time for which a stream token that has no open stream can be opened. */
  readonly tokenKeptMs: number;
}

export interface DisconnectRequest extends Disconnect {
  /**
   * JWTs of trusted issuers that were issued before this time (epoch ms) are no longer accepted for the user,
   * or for these sessions. Has no effect on a disconnect of `streams`.
   */
  readonly issuedBefore: number;
}

/** The effect of the disconnects of a user on a session. */
export interface DisconnectState {
  /** JWTs that were issued before this time are not accepted, epoch ms. 0 if there is no such limit. */
  readonly issuedBefore: number;
  /** Number of the newest entry of the event log in the same snapshot. */
  readonly headSeq: number;
}

/** The target of a disconnect of a whole user. Other targets are ids of sessions and tokens. */
const wholeUser = '';

/**
 * SQL that selects the newest disconnect that applies to the row `t` of `stream_tokens`, as part of another
 * query. Finds no disconnect of a token without `subject`.
 */
export const newestDisconnectSql = sql`(select max(d.seq) from disconnects d
  where d.user_id = t.subject and d.target in (${wholeUser}, t.session_id, t.public_id))`;

const dayMs = 86_400_000;
/** Longer than the life of any JWT and of any ticket: both are at most 30 days. */
const storedMinMs = 31 * dayMs;
const sweptMax = 500;

/**
 * Ends streams of a user in every process, and voids the user's stream tokens and JWTs. A disconnect is an
 * entry of the event log, and rows that are inserted in its transaction. A disconnect does not void a token that
 * is minted later, because each token stores the number of the newest entry at its minting.
 */
export class Disconnects {
  readonly #options: DisconnectsOptions;

  constructor(options: DisconnectsOptions) {
    this.#options = options;
  }

  /**
   * Stores a disconnect and returns the number of its entry. Every process closes the streams before that process
   * delivers any event with a higher number.
   */
  add({ issuedBefore, ...disconnect }: DisconnectRequest): Promise<number> {
    const { db, wallClock, appendControlEntries } = this.#options;
    const { userId, sessionIds = [], streams = [] } = disconnect;
    const isLimited = disconnect.sessionIds !== undefined || disconnect.streams !== undefined;
    return db.transaction(async (tx) => {
      const seq = await appendControlEntries(tx, [{ kind: 'disconnected', disconnect }]);
      const now = wallClock();
      // A map, because an id can be given both as a stream and as a session.
      const issuedBeforeByTarget = new Map([
        ...streams.map((target) => [target, 0] as const),
        ...(isLimited ? sessionIds : [wholeUser]).map((target) => [target, issuedBefore] as const),
      ]);
      const rows = [...issuedBeforeByTarget].map(([target, before]) => {
        return [userId, target, seq, before, now];
      });
      if (rows.length > 0) {
        await tx.execute(
          sql`insert into disconnects (user_id, target, seq, issued_before, created_at)
            values ${tuples(rows)}`,
        );
      }
      return seq;
    });
  }

  /** Reads the state of a user's session, in one snapshot. */
  async findState(userId: string, sessionId: string): Promise<DisconnectState> {
    const { db, headSeqSql } = this.#options;
    const [row] = await db.query<{ issued_before: number | null; head_seq: number }>(
      sql`select max(issued_before) as issued_before, ${headSeqSql} as head_seq from disconnects
        where user_id = ${userId} and target in (${list([wholeUser, sessionId])})`,
    );
    return { issuedBefore: row?.issued_before ?? 0, headSeq: row?.head_seq ?? 0 };
  }

  /** Deletes about 500 disconnects that have no effect any more, and returns their number. Called by a timer. */
  async sweep(): Promise<number> {
    const { db, wallClock, tokenKeptMs } = this.#options;
    const storedMs = Math.max(storedMinMs, tokenKeptMs + dayMs);
    const rows = await db.query<{ created_at: number }>(
      sql`select created_at from disconnects where created_at < ${wallClock() - storedMs}
        order by created_at limit ${sweptMax}`,
    );
    const newest = rows.at(-1)?.created_at;
    if (newest === undefined) return 0;
    return db.execute(sql`delete from disconnects where created_at <= ${newest}`);
  }
}

/** Returns the number of the newest disconnect of a user, session or token; 0 if there is none. */
export async function findNewestDisconnectSeq(
  db: Database,
  userId: string,
  targets: readonly string[],
): Promise<number> {
  const [row] = await db.query<{ seq: number | null }>(
    sql`select max(seq) as seq from disconnects
      where user_id = ${userId} and target in (${list([wholeUser, ...targets])})`,
  );
  return row?.seq ?? 0;
}
