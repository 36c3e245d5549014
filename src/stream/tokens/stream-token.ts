import { hash as digest, randomBytes } from 'node:crypto';
import {
  type Database,
  inserts,
  list,
  ReferenceViolation,
  type Sql,
  sql,
  type Value,
} from '../../db/database.js';
import { Failure } from '../../errors.js';
import type { AppendControlEntries } from '../../event-log/open.js';
import { noRights, type TopicRights } from '../../events/topic-rights.js';
import { Batcher } from '../../util/batcher.js';
import { LruMap } from '../../util/lru-map.js';
import { findNewestDisconnectSeq, newestDisconnectSql } from '../disconnects.js';
import { type ChoiceRow, insertChoices } from '../topics/choice-rows.js';
import {
  type ConfirmRights,
  type GrantedToken,
  replaceGrant,
  requireConfirmed,
  type TokenGrant,
  toStoredRights,
} from '../topics/token-rights.js';
import { type NewExpiry, RefusedTokens } from './refused-tokens.js';
import { type TokenState, type TokenStateRow, toTokenState } from './token-holders.js';

export interface StreamTokenOptions {
  readonly db: Database;
  readonly wallClock: () => number;
  readonly appendControlEntries: AppendControlEntries;
  /** Time within which a new token must be opened. */
  readonly lifeMs: number;
  readonly mode: 'resume' | 'single';
  /** Maximum number of open streams per user. The same number of unopened tokens is kept, but at least ten. */
  readonly streamsPerUserMax: number;
}

export interface StreamToken extends TokenState {
  readonly hash: string;
  /** Identifies the token to its client and to operators. It cannot open a stream. */
  readonly publicId: string;
  readonly userId: string;
  readonly sessionId: string;
  /** Time at which streams of a user without an account end, epoch ms. Undefined with a local session. */
  readonly endsAt: number | undefined;
  /** Number of the newest entry at minting, see `NewStreamToken`. 0 for tokens from before migration 7. */
  readonly mintedSeq: number;
  /** As stored, see `parseStoredRights`. */
  readonly rights: string | null;
  /** See `TokenGrant`. 0 for tokens without rights of earlier versions. */
  readonly rightsSeq: number;
  /**
   * The position of the event log at which the token was minted. Its streams start there unless the client
   * sends an id. Undefined for some tokens that version 0.1.0 minted.
   */
  readonly beginning: string | undefined;
}

/** A token to be minted. */
export interface NewStreamToken {
  readonly userId: string;
  readonly sessionId: string;
  readonly beginning: string;
  /**
   * The newest entry of the event log in a snapshot that was read before the credential of the user was
   * verified, or together with it. A later disconnect of the user voids the token.
   */
  readonly mintedSeq: number;
  /** Time at which streams of the token end, epoch ms. Only for users without an account. */
  readonly endsAt?: number | undefined;
  /** The topics that its client may choose. A revocation after `mintedSeq` voids the right on its topic. */
  readonly rights?: TopicRights;
  /** Confirms the rights in the transaction that inserts the token. */
  readonly confirmRights?: ConfirmRights | undefined;
  /** Topics that are chosen from the beginning of the token. At most 100, within the rights. */
  readonly topics?: readonly string[];
}

/** A token that is about to be stored, with its chosen topics. */
interface TokenInsert {
  readonly values: readonly Value[];
  readonly choices: readonly ChoiceRow[];
}

interface Row extends TokenStateRow {
  /** Null for users without an account. */
  readonly user_id: number | null;
  /** Null for tokens that were minted before migration 7. */
  readonly subject: string | null;
  /** Null for tokens that were minted before migration 7. */
  readonly public_id: string | null;
  readonly session_id: string;
  readonly expires_at: number;
  readonly lease_until: number | null;
  readonly start_position: string | null;
  readonly ends_at: number | null;
  readonly minted_seq: number | null;
  readonly rights: string | null;
  readonly rights_seq: number | null;
  /** The newest disconnect of the user, the session or the token. */
  readonly disconnected_seq: number | null;
}

const tokenPattern = /^[0-9a-f]{128}$/;
const unopenedPerUserMin = 10;
/**
 * Maximum number of users whose minted tokens are counted. Above it, the count that was updated least
 * recently is evicted.
 */
const countedUsersMax = 10_000;
const batchMax = 500;
const insertToken = sql`insert into stream_tokens (token_hash, public_id, user_id, subject, session_id,
  created_at, expires_at, ends_at, start_position, minted_seq, rights, rights_seq) values `;
/**
 * Time for which an expired token is kept, because a stream that opened the token in time may be about to claim
 * it, or because a process that refused its client may be unable to store the new expiry now.
 */
const sweepDelayMs = 600_000;

/**
 * Stores stream tokens: 64 random bytes in hex, of which only the SHA-256 is stored.
 *
 * A token must be opened within `lifeMs`. In mode `resume` the same URL can be opened again, as an
 * EventSource does when it reconnects, until the resume window after the end of its last stream has
 * passed. In this mode `find` changes nothing, and a stream claims its token after it has opened (see
 * `TokenHolders`). In mode `single` a token can be claimed once, and is claimed before its stream
 * opens. The caller of `find` has to check that the session has not ended.
 */
export class StreamTokens {
  readonly #db: Database;
  /** The same database with the share for background work: for deleting tokens. */
  readonly #background: Database;
  readonly #wallClock: () => number;
  readonly #lifeMs: number;
  readonly #mode: 'resume' | 'single';
  readonly #unopenedPerUserMax: number;
  readonly #appendControlEntries: StreamTokenOptions['appendControlEntries'];
  readonly #inserts: Batcher<TokenInsert, undefined>;
  readonly #lookups: Batcher<string, Row | undefined>;
  readonly #refused: RefusedTokens;
  /** Number of tokens minted per user. The count restarts at `until`, epoch ms. */
  readonly #mintCounts = new LruMap<string, { readonly count: number; readonly until: number }>(
    countedUsersMax,
  );

  constructor(options: StreamTokenOptions) {
    this.#db = options.db;
    this.#background = options.db.background ?? options.db;
    this.#wallClock = options.wallClock;
    this.#lifeMs = options.lifeMs;
    this.#mode = options.mode;
    this.#unopenedPerUserMax = Math.max(unopenedPerUserMin, options.streamsPerUserMax);
    this.#appendControlEntries = options.appendControlEntries;
    this.#lookups = Batcher.forDatabase(this.#db, (hashes) => this.#findRows(hashes));
    this.#inserts = Batcher.forDatabase(this.#db, (tokens) => this.#insert(tokens));
    const storeExpiry = (expiry: NewExpiry) => this.#storeExpiry(expiry);
    this.#refused = new RefusedTokens({ wallClock: this.#wallClock, storeExpiry });
  }

  get mode(): StreamTokenOptions['mode'] {
    return this.#mode;
  }

  /** Time within which a new token must be opened. */
  get lifeMs(): number {
    return this.#lifeMs;
  }

  /**
   * Mints a token. Throws `invalid_token` when the account of the user was deleted meanwhile, `expired_token`
   * when `endsAt` has passed, and `service_unavailable` when the rights have changed since they were read.
   *
   * The number of unopened tokens of a user is limited to `streamsPerUserMax`, but at least ten. Once this
   * process has minted more tokens than that for the user without a pause of `lifeMs`, each call deletes
   * unopened tokens above the limit and keeps the newest.
   */
  async mint(minted: NewStreamToken): Promise<string> {
    const { userId, sessionId, beginning, mintedSeq, endsAt, confirmRights } = minted;
    const { rights = noRights, topics = [] } = minted;
    const token = randomBytes(64).toString('hex');
    const hash = hashToken(token);
    const now = this.#wallClock();
    if (this.#countMinted(userId, now) > this.#unopenedPerUserMax)
      await this.#deleteSurplus(userId);
    if (endsAt !== undefined && endsAt <= now) {
      throw new Failure('expired_token', 'Cannot issue stream token: the credential has expired');
    }
    const localId = endsAt === undefined ? Number(userId) : null;
    const times = [now, now + this.#lifeMs, endsAt ?? null];
    const insert = {
      values: [
        ...[hash, getPublicId(hash), localId, userId, sessionId, ...times],
        ...[beginning, mintedSeq, toStoredRights(rights), mintedSeq],
      ],
      choices: topics.map((topic) => ({ tokenHash: hash, topic, since: mintedSeq })),
    };
    const inserting =
      confirmRights === undefined
        ? this.#inserts.run(insert)
        : this.#db.transaction(async (tx) => {
            await requireConfirmed(tx, confirmRights);
            await insertAll(tx, [insert]);
          });
    await inserting.catch((cause: unknown) => {
      if (!(cause instanceof ReferenceViolation)) throw cause;
      const message = 'Cannot issue stream token: its user is deleted';
      throw new Failure('invalid_token', message, { cause });
    });
    return token;
  }

  /**
   * Looks up a stream token. Throws `invalid_token` when the token is malformed, unknown, cannot be opened
   * again or was disconnected after it was minted, and `expired_token` when it has expired. With `isOpen`, a
   * token that was already opened is accepted even in mode `single`.
   */
  async find(token: string, { isOpen = false } = {}): Promise<StreamToken> {
    if (!tokenPattern.test(token)) throw invalidStreamToken(); // Without a query.
    const hash = hashToken(token);
    const row = await this.#lookups.run(hash);
    if (row === undefined) throw invalidStreamToken();
    if (row.lease_until !== null && this.#mode === 'single' && !isOpen) throw invalidStreamToken();
    const now = this.#wallClock();
    const expiresAt = row.lease_until ?? row.expires_at;
    const hasExpired = expiresAt <= now && !this.#refused.isKeptAlive(hash, expiresAt);
    const endsAt = row.ends_at ?? undefined;
    if (hasExpired || (endsAt !== undefined && endsAt <= now)) {
      throw new Failure('expired_token', 'Cannot use stream token: it has expired');
    }
    const mintedSeq = row.minted_seq ?? 0;
    if ((await this.#findDisconnect(row)) > mintedSeq) throw invalidStreamToken();
    const beginning = row.start_position ?? undefined;
    const ids = { userId: row.subject ?? String(row.user_id), sessionId: row.session_id };
    const publicId = getPublicId(hash);
    const { rights, rights_seq: rightsSeq } = row;
    return {
      ...{
        hash,
        publicId,
        ...ids,
        beginning,
        endsAt,
        mintedSeq,
        rights,
        rightsSeq: rightsSeq ?? 0,
      },
      ...toTokenState(row),
    };
  }

  /**
   * Keeps the token of a client alive that was told to retry after `waitMs`: for that time and another 30 s. Takes
   * effect in this process at once, and in other processes after `storeKeptAlive`. See `RefusedTokens`.
   */
  keepAlive(hash: string, waitMs: number): void {
    this.#refused.add(hash, waitMs);
  }

  /**
   * Stores the new expiry of the tokens that are kept alive, unless it is stored already. Called by a timer.
   * Rejects when the database fails; the next call then tries again.
   */
  storeKeptAlive(): Promise<void> {
    return this.#refused.store();
  }

  /**
   * Replaces the rights of a token, the entry before which a disconnect or revocation voids them, and for a user
   * without an account the end, by those of a fresh credential. Streams of the token, in every process, end at
   * the new time, and lose the chosen topics that the new rights do not cover. Throws `invalid_token` if the token
   * was deleted meanwhile, and `service_unavailable` when the fresh rights have changed since they were read.
   */
  async extend(token: GrantedToken, grant: TokenGrant): Promise<void> {
    const parts = { db: this.#db, appendControlEntries: this.#appendControlEntries };
    if (!(await replaceGrant(parts, token, grant))) throw invalidStreamToken();
  }

  /** Locks a token in a transaction. Returns whether it exists and its rights are these, as they are stored. */
  async confirmRights(tx: Database, tokenHash: string, rights: string | null): Promise<boolean> {
    const areSame = rights === null ? sql`rights is null` : sql`rights = ${rights}`;
    const count = await tx.execute(
      sql`update stream_tokens set rights = rights where token_hash = ${tokenHash} and ${areSame}`,
    );
    return count === 1;
  }

  /** Deletes a token whose URL has leaked, and closes its streams in every process as `revoked`. */
  async revokeLeaked(tokenHash: string): Promise<void> {
    await this.#background.transaction(async (tx) => {
      await tx.execute(sql`delete from stream_tokens where token_hash = ${tokenHash}`);
      await this.#appendControlEntries(tx, [{ kind: 'token_revoked', tokenHash }]);
    });
  }

  /** Deletes all tokens of these sessions. */
  async deleteBySessions(sessionIds: readonly string[]): Promise<void> {
    for (let start = 0; start < sessionIds.length; start += batchMax) {
      const batch = list(sessionIds.slice(start, start + batchMax));
      await this.#background.execute(sql`delete from stream_tokens where session_id in (${batch})`);
    }
  }

  /**
   * Deletes up to 500 tokens that expired at least ten minutes ago, and returns their number. Called by a timer.
   */
  async sweep(): Promise<number> {
    const expiredBefore = this.#wallClock() - sweepDelayMs;
    const rows = await this.#background.query<{ token_hash: string }>(
      sql`select token_hash from stream_tokens where lease_until <= ${expiredBefore}
        union all select token_hash from stream_tokens
        where lease_until is null and expires_at <= ${expiredBefore} limit ${batchMax}`,
    );
    if (rows.length === 0) return 0;
    const hashes = list(rows.map((row) => row.token_hash));
    return this.#background.execute(sql`delete from stream_tokens where token_hash in (${hashes})`);
  }

  async #insert(tokens: readonly TokenInsert[]): Promise<undefined[]> {
    const [insert, ...more] = toInserts(tokens);
    const isOneStatement = more.length === 0 && tokens.every(({ choices }) => choices.length === 0);
    if (insert !== undefined && isOneStatement) await this.#db.execute(insert);
    else await this.#db.transaction((tx) => insertAll(tx, tokens));
    return tokens.map(() => undefined);
  }

  /** Returns the number of the newest disconnect that applies to a token; 0 if there is none. */
  #findDisconnect(row: Row): number | Promise<number> {
    const hasIds = row.subject !== null && row.public_id !== null;
    if (hasIds || row.user_id === null) return row.disconnected_seq ?? 0;
    const targets = [row.session_id, getPublicId(row.token_hash)];
    return findNewestDisconnectSeq(this.#db, String(row.user_id), targets);
  }

  async #storeExpiry({ tokenHashes, validAt, until }: NewExpiry): Promise<void> {
    const expiry = sql`coalesce(lease_until, expires_at)`;
    await this.#db.execute(
      sql`update stream_tokens
        set expires_at = case when expires_at < ${until} then ${until} else expires_at end,
          lease_until = case when lease_until < ${until} then ${until} else lease_until end
        where token_hash in (${list(tokenHashes)}) and ${expiry} > ${validAt} and ${expiry} < ${until}`,
    );
  }

  /**
   * Counts a token that is about to be minted, and returns the number of tokens minted for the user without
   * a pause of `lifeMs`.
   */
  #countMinted(userId: string, now: number): number {
    const { count, until } = this.#mintCounts.get(userId) ?? { count: 0, until: now };
    const minted = { count: until > now ? count + 1 : 1, until: now + this.#lifeMs };
    this.#mintCounts.set(userId, minted);
    return minted.count;
  }

  async #findRows(hashes: readonly string[]): Promise<(Row | undefined)[]> {
    const rows = await this.#db.query<Row>(
      sql`select token_hash, user_id, subject, public_id, session_id, expires_at, lease_until, ends_at,
          start_position, minted_seq, rights, rights_seq, version, connection_id,
          ${newestDisconnectSql} as disconnected_seq
        from stream_tokens t where token_hash in (${list(hashes)})`,
    );
    const found = new Map(rows.map((row) => [row.token_hash, row]));
    return hashes.map((hash) => found.get(hash));
  }

  /**
   * Deletes unopened tokens of a user so that one more can be minted. Keeps the newest tokens. At most 101 are
   * deleted per call.
   */
  async #deleteSurplus(userId: string): Promise<void> {
    const rows = await this.#db.query<{ token_hash: string }>(
      sql`select token_hash from stream_tokens
        where subject = ${userId} and lease_until is null
        order by created_at desc limit ${this.#unopenedPerUserMax + 100}`,
    );
    const surplus = rows.slice(this.#unopenedPerUserMax - 1).map((row) => row.token_hash);
    if (surplus.length === 0) return;
    await this.#db.execute(sql`delete from stream_tokens where token_hash in (${list(surplus)})`);
  }
}

function toInserts(tokens: readonly TokenInsert[]): Sql[] {
  return inserts(
    insertToken,
    tokens.map(({ values }) => values),
  );
}

async function insertAll(tx: Database, tokens: readonly TokenInsert[]): Promise<void> {
  await Promise.all(toInserts(tokens).map((insert) => tx.execute(insert)));
  await insertChoices(
    tx,
    tokens.flatMap(({ choices }) => choices),
  );
}

/** Returns the public id of the token with this hash: 32 hex digits. See `StreamToken`. */
export function getPublicId(tokenHash: string): string {
  return digest('sha256', `public id of ${tokenHash}`).slice(0, 32);
}

/** Returns whether a credential has the form of a stream token. */
export function isStreamToken(text: string): boolean {
  return tokenPattern.test(text);
}

/** Returns the hash under which a token is stored. */
export function hashToken(token: string): string {
  return digest('sha256', token);
}

/** Returns the failure for any unusable token. Its message does not disclose the reason. */
export function invalidStreamToken(): Failure {
  return new Failure('invalid_token', 'Cannot use stream token: it is not valid');
}
