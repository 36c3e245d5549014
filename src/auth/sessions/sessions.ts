import { randomBytes } from 'node:crypto';
import type { Clock } from '../../clock.js';
import type { Database, Sql } from '../../db/database.js';
import { unavailable } from '../../db/failures.js';
import { Failure } from '../../errors.js';
import type { AppendControlEntries } from '../../event-log/open.js';
import { sessionsEnded } from '../../events/control-entry.js';
import { parseStoredRights, type TopicRights } from '../../events/topic-rights.js';
import type { Client } from '../../http/client.js';
import type { Audit } from '../../logging/audit.js';
import { Batcher } from '../../util/batcher.js';
import { LruMap } from '../../util/lru-map.js';
import { Semaphore } from '../../util/semaphore.js';
import { KeyedSharedCalls } from '../../util/shared-call.js';
import type { SignAccessToken } from '../access-token-signer.js';
import {
  formatRefreshToken,
  hashVerifier,
  parseRefreshToken,
  type RefreshTokens,
} from '../refresh-token.js';
import type { Account, User, Users } from '../users.js';
import { getEndState, type Rotation, rotate } from './rotation.js';
import {
  clearSuccessors,
  deleteEnded,
  type EndReason,
  findLiveSessions,
  findSessions,
  findUnrevokedIds,
  hasLiveSession,
  insertSession,
  revokeSessions,
  type SessionSummary,
  type StoredSession,
} from './session-table.js';

/** Sessions that were ended before they expired. Some may have been ended by an earlier call. */
export interface EndedSessions {
  readonly sessionIds: readonly string[];
  readonly reason: EndReason;
}

export interface SessionsOptions {
  readonly db: Database;
  readonly users: Users;
  readonly refreshTokens: RefreshTokens;
  readonly audit: Audit;
  /**
   * Appends to the event log in the transaction that ends sessions, so that every process closes their
   * streams. After this step the transaction waits for no other lock.
   */
  readonly appendControlEntries: AppendControlEntries;
  /**
   * Called after the sessions were revoked in the database, and awaited before the call that ended them
   * resolves. Must not reject.
   */
  readonly onEnded: (ended: EndedSessions) => Promise<void>;
  /** Selects the number of the newest entry of the event log. */
  readonly headSeqSql: Sql;
  /** A session that is not refreshed for this long expires. */
  readonly idleMs: number;
  /** Every session expires this long after the login. */
  readonly absoluteMs: number;
  /** How long an already exchanged refresh token still gets its successor. 0 to 60,000. */
  readonly graceMs: number;
  /** Live sessions per user. Over the limit, the least recently refreshed ones end. */
  readonly perUserMax: number;
  readonly wallClock?: Clock;
}

/** The tokens issued for a password or a refresh token. */
export interface IssuedTokens {
  readonly accessToken: string;
  readonly refreshToken: string;
  readonly refreshTokenExpiresInMs: number;
  readonly sessionId: string;
}

export interface LiveSession {
  readonly id: string;
  readonly userId: string;
  /** The earlier of the idle and the absolute expiry, in epoch milliseconds. */
  readonly expiresAt: number;
  readonly user: User;
  /** The rights of the user, read in the same snapshot. */
  readonly rights: TopicRights;
  /** Whether the user has rights that an operator has set. */
  readonly hasOwnRights: boolean;
  /** Locks the rights until the end of a transaction, and returns whether they are still the same. */
  readonly confirmRights: (tx: Database) => Promise<boolean>;
  /**
   * Number of the newest entry of the event log in the snapshot in which the session was read: the session reflects
   * all entries up to it.
   */
  readonly headSeq: number;
}

const dayMs = 86_400_000;
const trackedMax = 10_000;
const clearBatchMax = 500;
/** How long `findLive` remembers that a session is revoked or deleted. */
const endedCacheMs = 10_000;
/**
 * Limits for transactions that end sessions. Requests start them, but they use the share of the background
 * work, so their number must be bounded.
 */
const endings = { runningMax: 16, waitingMax: 1000 };

/**
 * Manages login sessions, from `/login` to logout, expiry or revocation. A session is a row, which is
 * deleted a day after the session ended.
 */
export class Sessions {
  readonly #options: SessionsOptions;
  readonly #db: Database;
  /** For ending and deleting sessions. */
  readonly #background: Database;
  readonly #wallClock: Clock;
  readonly #byId: Batcher<string, StoredSession | undefined>;
  readonly #bySelector: Batcher<string, StoredSession | undefined>;
  /** The end of the grace period, by session id, after a refresh in this process. */
  readonly #graceEnds = new LruMap<string, number>(trackedMax);
  /** The time in epoch ms until which a revoked or deleted session is not looked up again, by id. */
  readonly #ended = new LruMap<string, number>(trackedMax);
  readonly #endings = new Semaphore(endings.runningMax);
  readonly #sharedEndings = new KeyedSharedCalls<readonly string[]>();

  constructor(options: SessionsOptions) {
    this.#options = options;
    this.#db = options.db;
    this.#background = options.db.background ?? options.db;
    this.#wallClock = options.wallClock ?? Date.now;
    this.#byId = Batcher.forDatabase(this.#db, (ids) =>
      findSessions(this.#db, 'id', ids, options.headSeqSql),
    );
    this.#bySelector = Batcher.forDatabase(this.#db, (selectors) =>
      findSessions(this.#db, 'selector', selectors),
    );
  }

  /**
   * Opens a session for an account whose password was just verified. Returns undefined and opens
   * no session when the account has changed since it was read (new password, disabled, deleted).
   */
  async open(
    account: Account,
    client: Client,
    sign: SignAccessToken,
  ): Promise<IssuedTokens | undefined> {
    const { refreshTokens, idleMs, absoluteMs, users, perUserMax } = this.#options;
    const id = randomBytes(16).toString('hex');
    const token = refreshTokens.mint();
    const accessToken = await sign({ id, user: account }); // Signed before any row is written.
    const now = this.#wallClock();
    const absoluteExpiresAt = now + absoluteMs;
    const idleExpiresAt = Math.min(now + idleMs, absoluteExpiresAt);
    const expiry = { now, idleExpiresAt, absoluteExpiresAt };
    const { selector } = token;
    const session = { id, userId: account.id, selector, currentHash: hashVerifier(token.verifier) };
    const surplus = await this.#db.transaction(async (tx) => {
      // `recordLogin` locks the user's row. A password change therefore either committed before and is
      // detected here, or runs later and ends this session too. The statements are sent together,
      // because a round trip takes longer than the statement itself.
      const [isUnchanged, others] = await Promise.all([
        users.recordLogin(account, tx),
        findLiveSessions(tx, account.id, now),
      ]);
      if (!isUnchanged) return undefined;
      const surplusIds = others.slice(perUserMax - 1).map((other) => other.id);
      const inserting = insertSession(tx, { ...session, ...expiry, client });
      await Promise.all([inserting, this.#endInTransaction(tx, surplusIds, 'limit', now)]);
      return surplusIds;
    });
    if (surplus === undefined) return undefined;
    this.#options.audit.record('session_created', { client, userId: account.id, sessionId: id });
    if (surplus.length > 0) {
      const fields = { client, userId: account.id, sessionIds: surplus };
      this.#options.audit.record('excess_sessions_exceeded', fields);
      await this.#options.onEnded({ sessionIds: surplus, reason: 'limit' });
    }
    const refreshToken = formatRefreshToken(token);
    return {
      accessToken,
      refreshToken,
      refreshTokenExpiresInMs: idleExpiresAt - now,
      sessionId: id,
    };
  }

  /**
   * Exchanges a refresh token for the next one (see `rotate` in rotation.ts). Throws `expired_token` for
   * an expired session, `service_unavailable`, and otherwise `invalid_token`, which does not disclose
   * whether the token is unknown, forged, revoked, superseded or reused. Rejects with the reason of
   * `signal` when the client disconnects before anything is decided.
   */
  async rotate(
    text: unknown,
    client: Client,
    sign: SignAccessToken,
    signal = new AbortController().signal,
  ): Promise<IssuedTokens> {
    const token = parseRefreshToken(text);
    const { refreshTokens, graceMs, idleMs } = this.#options;
    const findBySelector = (selector: string) => this.#bySelector.run(selector);
    const timing = { wallClock: this.#wallClock, graceMs, idleMs };
    const endReused = (id: string) => this.#endOne(id, 'reuse', signal);
    const parts = { db: this.#db, findBySelector, endReused, refreshTokens, ...timing };
    const rotation = await rotate(parts, { token, client, sign, signal });
    await this.#handleRotation(rotation, client);
    if (rotation.outcome !== 'rotated' && rotation.outcome !== 'replayed')
      throw toFailure(rotation);
    this.#trackGrace(rotation.session.id);
    return {
      accessToken: rotation.accessToken,
      refreshToken: formatRefreshToken(rotation.successor),
      refreshTokenExpiresInMs: rotation.idleExpiresAt - this.#wallClock(),
      sessionId: rotation.session.id,
    };
  }

  /**
   * Finds a session. Returns undefined if it is revoked, expired or deleted, or if its user is disabled.
   * Concurrent calls share a query. A revoked or deleted session costs one query per 10 s, however often
   * its tokens are presented.
   */
  async findLive(sessionId: string): Promise<LiveSession | undefined> {
    if ((this.#ended.get(sessionId) ?? 0) > this.#wallClock()) return undefined;
    const session = await this.#byId.run(sessionId);
    const now = this.#wallClock();
    const endState = session === undefined ? 'revoked' : getEndState(session, now);
    if (endState === 'revoked') this.#ended.set(sessionId, now + endedCacheMs);
    if (session === undefined || endState !== undefined) return undefined;
    const { id, user, idleExpiresAt, absoluteExpiresAt, storedRights, headSeq } = session;
    const expiresAt = Math.min(idleExpiresAt, absoluteExpiresAt);
    const { users } = this.#options;
    const rights = parseStoredRights(storedRights);
    return {
      ...{ id, userId: user.id, expiresAt, user, rights, headSeq },
      hasOwnRights: storedRights !== null,
      confirmRights: (tx) => users.confirmRights(user.id, storedRights, tx),
    };
  }

  /** Lists the live sessions of a user, most recently refreshed first. */
  async list(userId: string): Promise<SessionSummary[]> {
    return findLiveSessions(this.#db, userId, this.#wallClock());
  }

  /** Whether the user has a live session that was opened or last refreshed from this IP key. */
  async hasSessionFrom(userId: string, ipKey: string): Promise<boolean> {
    return hasLiveSession(this.#db, { userId, ipKey, now: this.#wallClock() });
  }

  /** Ends a session. Returns false when it had already ended. Concurrent calls share a transaction. */
  async end(sessionId: string, reason: EndReason): Promise<boolean> {
    const endedIds = await this.#sharedEndings.run(`session ${sessionId} ${reason}`, async () =>
      this.#report((await this.#endOne(sessionId, reason)) ? [sessionId] : [], reason),
    );
    return endedIds.length > 0;
  }

  /**
   * Ends all sessions of a user, or all but `except`, and returns their ids. `first` runs first in
   * the same transaction. It should update the user's row, because the lock on that row delays new
   * logins. Concurrent calls without `first` share a transaction.
   */
  async endAll(
    userId: string,
    reason: EndReason,
    { except, first }: { except?: string; first?: (tx: Database) => Promise<unknown> } = {},
  ): Promise<readonly string[]> {
    const end = async () => {
      const sessionIds = await this.#runEnding(async (tx) => {
        await first?.(tx);
        const ids = (await findUnrevokedIds(tx, userId)).filter((id) => id !== except);
        await this.#endInTransaction(tx, ids, reason, this.#wallClock());
        return ids;
      });
      return this.#report(sessionIds, reason);
    };
    if (first !== undefined) return end();
    return this.#sharedEndings.run(`user ${userId} ${reason} ${except}`, end);
  }

  /**
   * Deletes a batch of sessions that ended over a day ago, and returns how many were deleted. Also
   * clears sealed successors whose grace has ended. For a timer.
   */
  async deleteEnded(): Promise<number> {
    const now = this.#wallClock();
    const expiredGraceIds = [...this.#graceEnds]
      .filter(([, until]) => until < now)
      .map(([id]) => id);
    const ids = expiredGraceIds.slice(0, clearBatchMax);
    if (ids.length > 0) await clearSuccessors(this.#background, ids, now);
    for (const id of ids) {
      if ((this.#graceEnds.get(id) ?? now) < now) this.#graceEnds.delete(id); // Kept if rotated meanwhile.
    }
    return deleteEnded(this.#background, now - dayMs);
  }

  /** Returns false when the session had already ended. Ends nothing when `signal` aborts. */
  async #endOne(sessionId: string, reason: EndReason, signal?: AbortSignal): Promise<boolean> {
    const count = await this.#runEnding(async (tx) => {
      const ended = await this.#endInTransaction(tx, [sessionId], reason, this.#wallClock());
      signal?.throwIfAborted(); // The transaction may have waited for a lock.
      return ended;
    });
    return count > 0;
  }

  /** Throws `service_unavailable` when too many transactions wait to end sessions. */
  #runEnding<Result>(work: (tx: Database) => Promise<Result>): Promise<Result> {
    if (this.#endings.waiting >= endings.waitingMax) throw unavailable('overloaded');
    return this.#endings.run(() => this.#background.transaction(work));
  }

  /** Reports the sessions that were ended, if there are any, and returns their ids. */
  async #report(sessionIds: readonly string[], reason: EndReason): Promise<readonly string[]> {
    if (sessionIds.length > 0) await this.#options.onEnded({ sessionIds, reason });
    return sessionIds;
  }

  /**
   * Ends sessions and returns how many were ended. Appends control entries unless all of them had ended
   * before, because then their entries are in the event log already.
   */
  async #endInTransaction(
    tx: Database,
    sessionIds: readonly string[],
    reason: EndReason,
    now: number,
  ): Promise<number> {
    const count = await revokeSessions(tx, sessionIds, reason, now);
    if (count > 0) await this.#options.appendControlEntries(tx, sessionsEnded(sessionIds));
    return count;
  }

  #trackGrace(sessionId: string): void {
    // When the map is full, the oldest entry is evicted, and its sealed successor stays in the database
    // until the next rotation. It can be opened only with the old token, which is rejected by then.
    this.#graceEnds.set(sessionId, this.#wallClock() + this.#options.graceMs);
  }

  async #handleRotation(rotation: Rotation, client: Client): Promise<void> {
    const { audit, onEnded } = this.#options;
    const { outcome, session } = rotation;
    const fields = { client, ...(session && { userId: session.user.id, sessionId: session.id }) };
    if (outcome === 'rotated') audit.record('session_renewed', fields);
    if (outcome === 'replayed') audit.record('session_renewed', { ...fields, replayed: true });
    if (outcome === 'expired') audit.record('session_expired', fields);
    if (outcome !== 'reuse') return;
    audit.record('authn_token_reuse', fields);
    if (rotation.hasEndedSession)
      await onEnded({ sessionIds: [rotation.session.id], reason: 'reuse' });
  }
}

function toFailure({ outcome, session }: Rotation): Failure {
  if (outcome !== 'expired' || session === undefined) {
    return new Failure('invalid_token', 'Cannot refresh: the token is invalid');
  }
  const expiresAt = Math.min(session.idleExpiresAt, session.absoluteExpiresAt);
  const info = { expiresAt: new Date(expiresAt).toISOString() }; // Clients expect ISO 8601.
  return new Failure('expired_token', 'Cannot refresh: the token is expired', { info });
}
