import { hash as digest, randomBytes } from 'node:crypto';
import { type Database, list, type Sql, sql, tuples, type Value } from '../db/database.js';
import { Failure } from '../errors.js';
import { Batcher } from '../util/batcher.js';
import { LruMap } from '../util/lru-map.js';

export interface StreamTokenOptions {
  readonly db: Database;
  readonly wallClock: () => number;
  /** Time within which a new token must be opened. */
  readonly lifeMs: number;
  /** Time after its last stream within which a token can be opened again. */
  readonly resumeWindowMs: number;
  readonly mode: 'resume' | 'single';
}

export interface StreamToken {
  readonly hash: string;
  readonly userId: string;
  readonly sessionId: string;
  /** Position at which its first stream started; undefined if the token was never opened. */
  readonly startPosition: string | undefined;
  /** Whether a stream is open with the token, or was open when its process was killed. */
  readonly isInUse: boolean;
}

interface Row {
  readonly token_hash: string;
  readonly user_id: number;
  readonly session_id: string;
  readonly expires_at: number;
  readonly lease_until: number | null;
  readonly start_position: string | null;
  readonly connection_id: string | null;
}

interface Takeover {
  readonly connection_id: string;
  readonly token_hash: string;
  readonly taken_at: number;
}

type OpenableToken = Pick<StreamToken, 'hash' | 'isInUse'>;

const tokenPattern = /^[0-9a-f]{128}$/;
const unopenedPerUserMax = 10;
/** Maximum number of users with a token count. Over it, the least recently updated is evicted. */
const countedUsersMax = 10_000;
const batchMax = 500;
const takeoverLifeMs = 600_000;

/**
 * Stores stream tokens: 64 random bytes in hex, of which only the SHA-256 is stored.
 *
 * A token must be opened within `lifeMs`. In mode `resume` the same URL can be opened again, as an
 * EventSource does when it reconnects, until `resumeWindowMs` after its last stream. Only one
 * stream of a token is open at a time: a newer one takes over, and the older one is closed. In mode
 * `single` a token can be opened once. The
 * caller has to check that the session has not ended.
 */
export class StreamTokens {
  readonly #db: Database;
  readonly #wallClock: () => number;
  readonly #lifeMs: number;
  readonly #resumeWindowMs: number;
  readonly #mode: 'resume' | 'single';
  readonly #inserts: Batcher<readonly Value[], undefined>;
  readonly #mintCounts = new LruMap<string, { readonly count: number; readonly until: number }>(
    countedUsersMax,
  );

  constructor(options: StreamTokenOptions) {
    this.#db = options.db;
    this.#wallClock = options.wallClock;
    this.#lifeMs = options.lifeMs;
    this.#resumeWindowMs = options.resumeWindowMs;
    this.#mode = options.mode;
    this.#inserts = Batcher.forDatabase(this.#db, (rows) => this.#insert(rows));
  }

  /** Time within which a new token must be opened. */
  get lifeMs(): number {
    return this.#lifeMs;
  }

  /**
   * Interval of `renew` for open streams. Short, so that a crash costs little of the resume window.
   */
  get renewEveryMs(): number {
    return this.#resumeWindowMs / 12;
  }

  /**
   * Issues a token. Only the ten newest unopened tokens of a user are kept; the others are deleted
   * once this process has issued more than ten tokens to the user without a pause of `lifeMs`.
   * Rejects when the user does not exist.
   */
  async mint({ userId, sessionId }: { userId: string; sessionId: string }): Promise<string> {
    const token = randomBytes(64).toString('hex');
    const now = this.#wallClock();
    if (this.#countMinted(userId, now) > unopenedPerUserMax) await this.#dropUnopened(userId);
    await this.#inserts.run([hashToken(token), Number(userId), sessionId, now, now + this.#lifeMs]);
    return token;
  }

  /**
   * Looks up the token in a URL. Throws `invalid_token` when it is malformed, unknown or cannot be
   * opened again, and `expired_token` when it has expired.
   */
  async find(token: string): Promise<StreamToken> {
    if (!tokenPattern.test(token)) throw invalidStreamToken(); // Saves a query.
    const hash = hashToken(token);
    const [row] = await this.#db.query<Row>(
      sql`select token_hash, user_id, session_id, expires_at, lease_until, start_position,
          connection_id
        from stream_tokens where token_hash = ${hash}`,
    );
    if (row === undefined) throw invalidStreamToken();
    const now = this.#wallClock();
    if (row.lease_until !== null && this.#mode === 'single') throw invalidStreamToken();
    if ((row.lease_until ?? row.expires_at) <= now) {
      throw new Failure('expired_token', 'Cannot open stream: the stream token has expired');
    }
    const startPosition = row.start_position ?? undefined;
    const isInUse = row.connection_id !== null;
    return { hash, userId: String(row.user_id), sessionId: row.session_id, startPosition, isInUse };
  }

  /**
   * Marks a token as opened by a stream, and records a takeover for the process that has the older
   * stream. Throws `invalid_token` when the token has expired or was deleted since `find`.
   */
  async open({ hash, isInUse }: OpenableToken, streamId: string, position: string) {
    const now = this.#wallClock();
    const orResumable = this.#mode === 'resume' ? sql`or lease_until > ${now}` : sql``;
    const takeIf = async (condition: Sql): Promise<boolean> => {
      // `takeovers` is first, because MySQL assigns from left to right and later expressions see
      // new values.
      const opened = await this.#db.execute(
        sql`update stream_tokens set
            takeovers = takeovers + (case when connection_id is null then 0 else 1 end),
            connection_id = ${streamId},
            lease_until = ${now + this.#resumeWindowMs},
            start_position = coalesce(start_position, ${position})
          where token_hash = ${hash} and ((lease_until is null and expires_at > ${now}) ${orResumable})
            ${condition}`,
      );
      return opened > 0;
    };
    if (!isInUse && (await takeIf(sql`and connection_id is null`))) return;
    // The token was in use at `find`, or another stream has opened it since.
    if (!(await takeIf(sql``))) throw invalidStreamToken();
    await this.#recordTakeover(hash, streamId);
  }

  /** Deletes a token, and records a takeover so that another process closes its stream. */
  async invalidate(hash: string): Promise<void> {
    await this.#db.execute(sql`delete from stream_tokens where token_hash = ${hash}`);
    await this.#recordTakeover(hash, randomBytes(16).toString('hex'));
  }

  /** Returns the hashes of all tokens taken over since `time` (epoch ms), in any process. */
  async takenSince(time: number): Promise<readonly string[]> {
    const hashes = new Set<string>();
    let page: readonly Takeover[] = await this.#readTakeovers(time, '');
    for (let last = page.at(-1); last !== undefined; last = page.at(-1)) {
      for (const { token_hash } of page) hashes.add(token_hash);
      page = await this.#readTakeovers(last.taken_at, last.connection_id);
    }
    return [...hashes];
  }

  /** Whether this stream is the current one of the token. */
  async isHolder(hash: string, streamId: string): Promise<boolean> {
    const rows = await this.#db.query(
      sql`select token_hash from stream_tokens
        where token_hash = ${hash} and connection_id = ${streamId}`,
    );
    return rows.length === 1;
  }

  /** Starts the resume window of an ended stream. Does nothing if another stream took over. */
  async release(hash: string, streamId: string): Promise<void> {
    const until = this.#wallClock() + this.#resumeWindowMs;
    await this.#db.execute(
      sql`update stream_tokens set connection_id = null, lease_until = ${until}
        where token_hash = ${hash} and connection_id = ${streamId}`,
    );
  }

  /** Extends the leases of these tokens, whose streams are open, to `resumeWindowMs` from now. */
  async renew(hashes: readonly string[]): Promise<void> {
    const until = this.#wallClock() + this.#resumeWindowMs;
    for (let start = 0; start < hashes.length; start += batchMax) {
      const batch = list(hashes.slice(start, start + batchMax));
      await this.#db.execute(
        sql`update stream_tokens set lease_until = ${until} where token_hash in (${batch})`,
      );
    }
  }

  /** Deletes all tokens of these sessions. */
  async revoke(sessionIds: readonly string[]): Promise<void> {
    for (const sessionId of sessionIds) {
      await this.#db.execute(sql`delete from stream_tokens where session_id = ${sessionId}`);
    }
  }

  /** Deletes up to 500 expired tokens and returns how many were deleted. For a timer. */
  async sweep(): Promise<number> {
    const now = this.#wallClock();
    // Every process has applied takeovers that are this old.
    await this.#db.execute(
      sql`delete from stream_takeovers where taken_at < ${now - takeoverLifeMs}`,
    );
    const rows = await this.#db.query<{ token_hash: string }>(
      sql`select token_hash from stream_tokens where lease_until <= ${now}
        union all select token_hash from stream_tokens
        where lease_until is null and expires_at <= ${now} limit ${batchMax}`,
    );
    if (rows.length === 0) return 0;
    const hashes = list(rows.map((row) => row.token_hash));
    return this.#db.execute(sql`delete from stream_tokens where token_hash in (${hashes})`);
  }

  async #insert(rows: readonly (readonly Value[])[]): Promise<undefined[]> {
    await this.#db.execute(
      sql`insert into stream_tokens (token_hash, user_id, session_id, created_at, expires_at)
        values ${tuples(rows)}`,
    );
    return rows.map(() => undefined);
  }

  /** Counts a token that is about to be issued. The count restarts after a pause of `lifeMs`. */
  #countMinted(userId: string, now: number): number {
    const { count, until } = this.#mintCounts.get(userId) ?? { count: 0, until: now };
    const minted = { count: until > now ? count + 1 : 1, until: now + this.#lifeMs };
    this.#mintCounts.set(userId, minted);
    return minted.count;
  }

  /** Returns a page of takeovers, ordered by time and then by stream id. */
  #readTakeovers(time: number, afterId: string): Promise<Takeover[]> {
    return this.#db.query<Takeover>(
      sql`select connection_id, token_hash, taken_at from stream_takeovers
        where taken_at >= ${time} and (taken_at > ${time} or connection_id > ${afterId})
        order by taken_at, connection_id limit ${batchMax}`,
    );
  }

  async #recordTakeover(hash: string, streamId: string): Promise<void> {
    await this.#db.execute(
      sql`insert into stream_takeovers (connection_id, token_hash, taken_at)
        values (${streamId}, ${hash}, ${this.#wallClock()})`,
    );
  }

  async #dropUnopened(userId: string): Promise<void> {
    const rows = await this.#db.query<{ token_hash: string }>(
      sql`select token_hash from stream_tokens
        where user_id = ${Number(userId)} and lease_until is null
        order by created_at desc limit 100`,
    );
    const surplus = rows.slice(unopenedPerUserMax - 1).map((row) => row.token_hash);
    if (surplus.length === 0) return;
    await this.#db.execute(sql`delete from stream_tokens where token_hash in (${list(surplus)})`);
  }
}

function hashToken(token: string): string {
  return digest('sha256', token);
}

/** Returns the failure for any unusable token; the reason is not disclosed. */
export function invalidStreamToken(): Failure {
  return new Failure('invalid_token', 'Cannot open stream: the stream token is not valid');
}
