import { type Database, list, type Sql, sql } from '../../db/database.js';
import type { Client } from '../../http/client.js';
import type { User } from '../users.js';
import { toRowId } from '../users.js';

/** Why a session ended before it expired. */
export type EndReason = 'logout' | 'reuse' | 'password' | 'disabled' | 'limit' | 'admin';

/** A session with its user. Times are in epoch milliseconds. */
export interface StoredSession {
  readonly id: string;
  readonly user: User;
  readonly isUserDisabled: boolean;
  /** The rights of the user as stored, see `Account.rights`. */
  readonly storedRights: string | null;
  readonly selector: string;
  readonly currentHash: string;
  /** The hash of the token that was replaced last. */
  readonly previousHash: string | null;
  /** The current token, encrypted for the holder of the previous one. */
  readonly sealedSuccessor: string | null;
  /**
   * The end of the grace period in which the previous token still gets its successor, or
   * `graceNotStarted`.
   */
  readonly previousValidUntil: number;
  /** How many times the token was replaced. */
  readonly generation: number;
  /** When the last UPDATE that replaced the token was sent, or when the session was opened. */
  readonly refreshedAt: number;
  readonly idleExpiresAt: number;
  readonly absoluteExpiresAt: number;
  readonly revokedAt: number | null;
  /** Number of the newest entry of the event log in the snapshot in which the session was read. */
  readonly headSeq: number;
}

export interface NewSession {
  readonly id: string;
  readonly userId: string;
  readonly selector: string;
  readonly currentHash: string;
  readonly now: number;
  readonly idleExpiresAt: number;
  readonly absoluteExpiresAt: number;
  readonly client: Client;
}

/** The replacement of a session's token by its successor. */
export interface TokenSwap {
  readonly selector: string;
  readonly fromHash: string;
  readonly toHash: string;
  readonly sealedSuccessor: string | null;
  readonly previousValidUntil: number;
  readonly now: number;
  readonly idleExpiresAt: number;
  readonly client: Client;
}

/** The fields of a session in a list. */
export interface SessionSummary {
  readonly id: string;
  readonly createdAt: number;
  readonly refreshedAt: number;
  readonly expiresAt: number;
  readonly ipKey: string | undefined;
  readonly userAgent: string | undefined;
}

/** The end of a grace period that has not started yet. Later than any time. */
export const graceNotStarted = Number.MAX_SAFE_INTEGER;

interface Row {
  readonly id: string;
  readonly user_id: number;
  readonly selector: string;
  readonly cur_hash: string;
  readonly prev_hash: string | null;
  readonly successor_enc: string | null;
  readonly prev_valid_until: number;
  readonly generation: number;
  readonly refreshed_at: number;
  readonly idle_expires_at: number;
  readonly absolute_expires_at: number;
  readonly revoked_at: number | null;
  readonly username: string;
  readonly first_name: string;
  readonly last_name: string;
  readonly disabled_at: number | null;
  readonly rights: string | null;
  readonly head_seq: number | null;
}

const userColumns = sql`s.id, s.user_id, s.selector, s.cur_hash, s.prev_hash, s.successor_enc,
  s.prev_valid_until, s.generation, s.refreshed_at, s.idle_expires_at, s.absolute_expires_at,
  s.revoked_at, u.username, u.first_name, u.last_name, u.disabled_at, u.rights`;

const batchMax = 500;

/**
 * Finds sessions by id or selector with one query. Returns one result per key, in order. `headSeqSql` selects
 * `StoredSession.headSeq`.
 */
export async function findSessions(
  db: Database,
  by: 'id' | 'selector',
  keys: readonly string[],
  headSeqSql: Sql = sql`0`,
): Promise<(StoredSession | undefined)[]> {
  const column = by === 'id' ? sql`s.id` : sql`s.selector`;
  const rows = await db.query<Row>(
    sql`select ${userColumns}, ${headSeqSql} as head_seq
      from sessions s join users u on u.id = s.user_id where ${column} in (${list(keys)})`,
  );
  const found = new Map(rows.map((row) => [row[by], row]));
  return keys.map((key) => {
    const row = found.get(key);
    return row === undefined ? undefined : toSession(row);
  });
}

export async function insertSession(db: Database, session: NewSession): Promise<void> {
  const { now, client } = session;
  await db.execute(
    sql`insert into sessions (id, user_id, selector, cur_hash, prev_valid_until, generation,
        created_at, refreshed_at, idle_expires_at, absolute_expires_at, ip_key, user_agent)
      values (${session.id}, ${toRowId(session.userId)}, ${session.selector},
        ${session.currentHash}, 0, 0, ${now}, ${now}, ${session.idleExpiresAt},
        ${session.absoluteExpiresAt}, ${client.ipKey}, ${client.userAgent ?? null})`,
  );
}

/**
 * Replaces the current token (compare and swap). Returns false when another request has replaced it or
 * the session has ended.
 */
export async function swapToken(db: Database, swap: TokenSwap): Promise<boolean> {
  const { now, client } = swap;
  // `prev_hash` is set from a parameter: MySQL and MariaDB assign columns from left to right, so an expression may
  // read a column that the same statement has already changed.
  const count = await db.execute(
    sql`update sessions set prev_hash = ${swap.fromHash}, cur_hash = ${swap.toHash},
        successor_enc = ${swap.sealedSuccessor}, prev_valid_until = ${swap.previousValidUntil},
        generation = generation + 1, refreshed_at = ${now},
        idle_expires_at = ${swap.idleExpiresAt},
        ip_key = ${client.ipKey}, user_agent = ${client.userAgent ?? null}
      where selector = ${swap.selector} and cur_hash = ${swap.fromHash} and revoked_at is null
        and idle_expires_at > ${now} and absolute_expires_at > ${now}`,
  );
  return count === 1;
}

/**
 * Starts the grace period of the replacement by which `currentHash` became current. Does nothing when
 * it has started already, or the token was replaced again.
 */
export async function startGrace(
  db: Database,
  { selector, currentHash, until }: { selector: string; currentHash: string; until: number },
): Promise<void> {
  await db.execute(
    sql`update sessions set prev_valid_until = ${until}
      where selector = ${selector} and cur_hash = ${currentHash}
        and prev_valid_until = ${graceNotStarted}`,
  );
}

/** Revokes sessions and returns how many were revoked. Skips sessions that were revoked earlier. */
export async function revokeSessions(
  db: Database,
  ids: readonly string[],
  reason: EndReason,
  now: number,
): Promise<number> {
  let count = 0;
  for (let start = 0; start < ids.length; start += batchMax) {
    const batch = list(ids.slice(start, start + batchMax));
    count += await db.execute(
      sql`update sessions set revoked_at = ${now}, revoke_reason = ${reason}, successor_enc = null
        where id in (${batch}) and revoked_at is null`,
    );
  }
  return count;
}

/** Returns the ids of a user's sessions that are not revoked, including expired ones. */
export async function findUnrevokedIds(db: Database, userId: string): Promise<string[]> {
  const rows = await db.query<{ id: string }>(
    sql`select id from sessions where user_id = ${toRowId(userId)} and revoked_at is null`,
  );
  return rows.map((row) => row.id);
}

/** Lists a user's live sessions, most recently refreshed first. */
export async function findLiveSessions(
  db: Database,
  userId: string,
  now: number,
): Promise<SessionSummary[]> {
  interface SummaryRow
    extends Pick<Row, 'id' | 'refreshed_at' | 'idle_expires_at' | 'absolute_expires_at'> {
    readonly created_at: number;
    readonly ip_key: string | null;
    readonly user_agent: string | null;
  }
  const rows = await db.query<SummaryRow>(
    sql`select id, created_at, refreshed_at, idle_expires_at, absolute_expires_at, ip_key,
        user_agent from sessions where ${whereLive(userId, now)}
      order by refreshed_at desc, created_at desc, id`,
  );
  return rows.map((row) => ({
    id: row.id,
    createdAt: row.created_at,
    refreshedAt: row.refreshed_at,
    expiresAt: Math.min(row.idle_expires_at, row.absolute_expires_at),
    ipKey: row.ip_key ?? undefined,
    userAgent: row.user_agent ?? undefined,
  }));
}

export async function hasLiveSession(
  db: Database,
  { userId, ipKey, now }: { userId: string; ipKey: string; now: number },
): Promise<boolean> {
  const rows = await db.query(
    sql`select id from sessions where ${whereLive(userId, now)} and ip_key = ${ipKey} limit 1`,
  );
  return rows.length > 0;
}

/** Deletes the sealed successors of these sessions whose grace has ended. */
export async function clearSuccessors(
  db: Database,
  ids: readonly string[],
  now: number,
): Promise<void> {
  await db.execute(
    sql`update sessions set successor_enc = null
      where id in (${list(ids)}) and successor_enc is not null and prev_valid_until < ${now}`,
  );
}

/**
 * Deletes up to 500 sessions that expired, and up to 500 that were revoked, before `endedBefore`.
 * Returns how many were deleted.
 */
export async function deleteEnded(db: Database, endedBefore: number): Promise<number> {
  const expired = sql`idle_expires_at < ${endedBefore} order by idle_expires_at`;
  const revoked = sql`revoked_at < ${endedBefore} order by revoked_at`;
  let count = 0;
  for (const selection of [expired, revoked]) {
    const rows = await db.query<{ id: string }>(
      sql`select id from sessions where ${selection} limit ${batchMax}`,
    );
    if (rows.length === 0) continue;
    count += await db.execute(
      sql`delete from sessions where id in (${list(rows.map((row) => row.id))})`,
    );
  }
  return count;
}

function whereLive(userId: string, now: number): Sql {
  return sql`user_id = ${toRowId(userId)} and revoked_at is null
    and idle_expires_at > ${now} and absolute_expires_at > ${now}`;
}

function toSession(row: Row): StoredSession {
  const { username, first_name: firstName, last_name: lastName } = row;
  return {
    id: row.id,
    user: { id: String(row.user_id), username, firstName, lastName },
    isUserDisabled: row.disabled_at !== null,
    storedRights: row.rights,
    selector: row.selector,
    currentHash: row.cur_hash,
    previousHash: row.prev_hash,
    sealedSuccessor: row.successor_enc,
    previousValidUntil: row.prev_valid_until,
    generation: row.generation,
    refreshedAt: row.refreshed_at,
    idleExpiresAt: row.idle_expires_at,
    absoluteExpiresAt: row.absolute_expires_at,
    revokedAt: row.revoked_at,
    headSeq: row.head_seq ?? 0, // There is no event log before the first start of a server.
  };
}
