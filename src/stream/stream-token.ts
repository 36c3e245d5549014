import { hash as digest, randomBytes } from 'node:crypto';
import { type Database, list, type Sql, sql, tuples, type Value } from '../db/database.js';
import { Failure } from '../errors.js';
import { type ControlEntry, type Takeover, tokensTaken } from '../events/control-entry.js';
import { Batcher } from '../util/batcher.js';
import { LruMap } from '../util/lru-map.js';

export interface StreamTokenOptions {
  readonly db: Database;
  readonly wallClock: () => number;
  /** Appends to the event log in a transaction. It is its last step that may wait for a lock. */
  readonly appendControlEntries: (tx: Database, entries: readonly ControlEntry[]) => Promise<void>;
  /** Time within which a new token must be opened. */
  readonly lifeMs: number;
  /** Time after its last stream within which a token can be opened again. */
  readonly resumeWindowMs: number;
  readonly mode: 'resume' | 'single';
}

/** Which stream has a token. Every claim increments `version`. */
export interface TokenState {
  readonly version: number;
  /** Id of the stream that claimed the token last, unless it was released since. */
  readonly holder: string | undefined;
}

export interface StreamToken extends TokenState {
  readonly hash: string;
  readonly userId: string;
  readonly sessionId: string;
  /** Where the token begins: the position of its minting. Undefined for some tokens of version 0.1.0. */
  readonly beginning: string | undefined;
}

/** A token to be issued. */
export interface NewStreamToken {
  readonly userId: string;
  readonly sessionId: string;
  readonly beginning: string;
}

/** A stream claims a token that is still in the state in which it was read. */
export interface Claim {
  readonly tokenHash: string;
  readonly state: TokenState;
  readonly streamId: string;
}

/** A stream that no longer uses its token. */
export interface Release {
  readonly tokenHash: string;
  readonly streamId: string;
}

interface StateRow {
  readonly token_hash: string;
  readonly version: number;
  readonly connection_id: string | null;
}

interface Row extends StateRow {
  readonly user_id: number;
  readonly session_id: string;
  readonly expires_at: number;
  readonly lease_until: number | null;
  readonly start_position: string | null;
}

const tokenPattern = /^[0-9a-f]{128}$/;
const unopenedPerUserMax = 10;
/** Maximum number of users with a token count. Over it, the least recently updated is evicted. */
const countedUsersMax = 10_000;
const batchMax = 500;
/** A token that was opened in time is claimed a moment later, so it must not be deleted at once. */
const sweepDelayMs = 60_000;

/**
 * Stores stream tokens: 64 random bytes in hex, of which only the SHA-256 is stored.
 *
 * A token must be opened within `lifeMs`. In mode `resume` the same URL can be opened again, as an
 * EventSource does when it reconnects, until `resumeWindowMs` after its last stream. Opening a token
 * changes nothing; a stream that is open claims it (see `TokenClaim`). In mode `single` a token can
 * be claimed once, and is claimed before its stream opens. The caller has to check that the session
 * has not ended.
 */
export class StreamTokens {
  readonly #db: Database;
  readonly #wallClock: () => number;
  readonly #lifeMs: number;
  readonly #resumeWindowMs: number;
  readonly #mode: 'resume' | 'single';
  readonly #appendControlEntries: StreamTokenOptions['appendControlEntries'];
  readonly #inserts: Batcher<readonly Value[], undefined>;
  readonly #rows: Batcher<string, Row | undefined>;
  readonly #claims: Batcher<Claim, boolean>;
  readonly #mintCounts = new LruMap<string, { readonly count: number; readonly until: number }>(
    countedUsersMax,
  );

  constructor(options: StreamTokenOptions) {
    this.#db = options.db;
    this.#wallClock = options.wallClock;
    this.#lifeMs = options.lifeMs;
    this.#resumeWindowMs = options.resumeWindowMs;
    this.#mode = options.mode;
    this.#appendControlEntries = options.appendControlEntries;
    this.#rows = Batcher.forDatabase(this.#db, (hashes) => this.#findRows(hashes));
    this.#claims = Batcher.forDatabase(this.#db, (claims) => this.#claimAll(claims));
    this.#inserts = Batcher.forDatabase(this.#db, (rows) => this.#insert(rows));
  }

  get mode(): StreamTokenOptions['mode'] {
    return this.#mode;
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
  async mint({ userId, sessionId, beginning }: NewStreamToken): Promise<string> {
    const token = randomBytes(64).toString('hex');
    const now = this.#wallClock();
    if (this.#countMinted(userId, now) > unopenedPerUserMax) await this.#dropUnopened(userId);
    const expiresAt = now + this.#lifeMs;
    await this.#inserts.run([
      hashToken(token),
      Number(userId),
      sessionId,
      now,
      expiresAt,
      beginning,
    ]);
    return token;
  }

  /**
   * Looks up the token in a URL. Throws `invalid_token` when it is malformed, unknown or cannot be
   * opened again, and `expired_token` when it has expired.
   */
  async find(token: string): Promise<StreamToken> {
    if (!tokenPattern.test(token)) throw invalidStreamToken(); // Saves a query.
    const hash = hashToken(token);
    const row = await this.#rows.run(hash);
    if (row === undefined) throw invalidStreamToken();
    const now = this.#wallClock();
    if (row.lease_until !== null && this.#mode === 'single') throw invalidStreamToken();
    if ((row.lease_until ?? row.expires_at) <= now) {
      throw new Failure('expired_token', 'Cannot open stream: the stream token has expired');
    }
    const beginning = row.start_position ?? undefined;
    const ids = { userId: String(row.user_id), sessionId: row.session_id };
    return { hash, ...ids, beginning, ...toState(row) };
  }

  /** Reads which stream has a token. Returns undefined when the token is void. */
  async readState(tokenHash: string): Promise<TokenState | undefined> {
    const [row] = await this.#db.query<StateRow>(
      sql`select token_hash, version, connection_id from stream_tokens
        where token_hash = ${tokenHash}`,
    );
    return row === undefined ? undefined : toState(row);
  }

  /**
   * Makes a stream the holder of a token, unless the token has changed since its state was read.
   * Returns false if it has, or if the token is void. When an older holder is replaced, a control
   * entry tells it. If this rejects, the claim may have been committed. Concurrent claims share a
   * statement.
   */
  claim(claim: Claim): Promise<boolean> {
    return this.#claims.run(claim);
  }

  /** Starts the resume windows of up to 500 tokens that these streams still hold. */
  async release(releases: readonly Release[]): Promise<void> {
    const hashes = list(releases.map(({ tokenHash }) => tokenHash));
    const streamIds = list(releases.map(({ streamId }) => streamId));
    const until = this.#wallClock() + this.#resumeWindowMs;
    await this.#db.execute(
      sql`update stream_tokens set connection_id = null, lease_until = ${until}
        where token_hash in (${hashes}) and connection_id in (${streamIds})`,
    );
  }

  /** Deletes a token whose URL has leaked, and closes its streams in every process as `revoked`. */
  async revokeLeaked(tokenHash: string): Promise<void> {
    await this.#db.transaction(async (tx) => {
      await tx.execute(sql`delete from stream_tokens where token_hash = ${tokenHash}`);
      await this.#appendControlEntries(tx, [{ kind: 'token_revoked', tokenHash }]);
    });
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
  async deleteOfSessions(sessionIds: readonly string[]): Promise<void> {
    for (let start = 0; start < sessionIds.length; start += batchMax) {
      const batch = list(sessionIds.slice(start, start + batchMax));
      await this.#db.execute(sql`delete from stream_tokens where session_id in (${batch})`);
    }
  }

  /** Deletes up to 500 expired tokens and returns how many were deleted. For a timer. */
  async sweep(): Promise<number> {
    const expiredBefore = this.#wallClock() - sweepDelayMs;
    const rows = await this.#db.query<{ token_hash: string }>(
      sql`select token_hash from stream_tokens where lease_until <= ${expiredBefore}
        union all select token_hash from stream_tokens
        where lease_until is null and expires_at <= ${expiredBefore} limit ${batchMax}`,
    );
    if (rows.length === 0) return 0;
    const hashes = list(rows.map((row) => row.token_hash));
    return this.#db.execute(sql`delete from stream_tokens where token_hash in (${hashes})`);
  }

  async #insert(rows: readonly (readonly Value[])[]): Promise<undefined[]> {
    await this.#db.execute(
      sql`insert into stream_tokens
          (token_hash, user_id, session_id, created_at, expires_at, start_position)
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

  async #findRows(hashes: readonly string[]): Promise<(Row | undefined)[]> {
    const rows = await this.#db.query<Row>(
      sql`select token_hash, user_id, session_id, expires_at, lease_until, start_position, version,
          connection_id
        from stream_tokens where token_hash in (${list(hashes)})`,
    );
    const found = new Map(rows.map((row) => [row.token_hash, row]));
    return hashes.map((hash) => found.get(hash));
  }

  /** Claims tokens in one statement, or in one transaction if holders are replaced. */
  async #claimAll(claims: readonly Claim[]): Promise<boolean[]> {
    const replacing = claims.filter(({ state }) => state.holder !== undefined);
    if (replacing.length === 0) return this.#updateHolders(this.#db, claims);
    return this.#db.transaction(async (tx) => {
      const areClaimed = await this.#updateHolders(tx, claims);
      const takeovers = claims.flatMap((claim, index) =>
        areClaimed[index] === true && replacing.includes(claim) ? toTakeover(claim) : [],
      );
      await this.#appendControlEntries(tx, tokensTaken(takeovers));
      return areClaimed;
    });
  }

  async #updateHolders(db: Database, claims: readonly Claim[]): Promise<boolean[]> {
    const hashes = list(claims.map(({ tokenHash }) => tokenHash));
    const until = this.#wallClock() + this.#resumeWindowMs;
    const isUnchanged = (c: Claim) =>
      sql`(token_hash = ${c.tokenHash} and version = ${c.state.version})`;
    const holder = join(claims, (c) => sql` when ${isUnchanged(c)} then ${c.streamId}`);
    const unchanged = join(claims, (c) => sql` or ${isUnchanged(c)}`);
    const count = await db.execute(
      // `version` is set last, because MySQL assigns from left to right.
      sql`update stream_tokens set connection_id = case${holder} end,
          lease_until = ${until}, version = version + 1
        where token_hash in (${hashes}) and (1 = 0${unchanged})`,
    );
    if (count === claims.length) return claims.map(() => true);
    const rows = await db.query<StateRow>(
      sql`select token_hash, version, connection_id from stream_tokens
        where token_hash in (${hashes})`,
    );
    const holders = new Set(rows.map((row) => row.connection_id));
    return claims.map(({ streamId }) => holders.has(streamId));
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

function toState({ version, connection_id: holder }: StateRow): TokenState {
  return { version, holder: holder ?? undefined };
}

function toTakeover({ tokenHash, state, streamId }: Claim): Takeover {
  return { tokenHash, version: state.version + 1, streamId };
}

/** Concatenates a part per claim. */
function join(claims: readonly Claim[], toPart: (claim: Claim) => Sql): Sql {
  return claims.map(toPart).reduce((all, part) => sql`${all}${part}`, sql``);
}

function hashToken(token: string): string {
  return digest('sha256', token);
}

/** Returns the failure for any unusable token; the reason is not disclosed. */
export function invalidStreamToken(): Failure {
  return new Failure('invalid_token', 'Cannot open stream: the stream token is not valid');
}
