import { randomBytes } from 'node:crypto';
import type { Clock } from '../../clock.js';
import type { Database } from '../../db/database.js';
import { Failure } from '../../errors.js';
import { type ControlEntry, sessionsEnded } from '../../events/control-entry.js';
import type { Client } from '../../http/client.js';
import type { Audit } from '../../logging/audit.js';
import { Batcher } from '../../util/batcher.js';
import { LruMap } from '../../util/lru-map.js';
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

/** Sessions that were just ended before they expired. Some may have ended earlier. */
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
   * Appends to the event log in the transaction that ends sessions, so that every process ends their
   * streams. The last step of the transaction that may wait for a lock.
   */
  readonly appendControlEntries: (tx: Database, entries: readonly ControlEntry[]) => Promise<void>;
  /** Called after sessions have ended, and awaited before the caller is answered. Must not reject. */
  readonly onEnded: (ended: EndedSessions) => Promise<void>;
  /** A session that is not refreshed for so long expires, */
  readonly idleMs: number;
  /** Every session expires this long after the login. */
  readonly absoluteMs: number;
  /** How long a spent refresh token still yields its successor; 0 to 60,000. */
  readonly graceMs: number;
  /** Over the limit, the user's least recently refreshed sessions end. */
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
  /** The earlier of the idle and the absolute expiry. */
  readonly expiresAt: number;
  readonly user: User;
  /** Seconds; access tokens issued before are void. */
  readonly tokensValidAfter: number;
}

const day = 86_400_000;
const spentMax = 10_000;
const clearMax = 500;

/**
 * Login sessions, from `/login` to logout, expiry or revocation. One row each, deleted a day after
 * the session ends.
 */
export class Sessions {
  readonly #options: SessionsOptions;
  readonly #db: Database;
  readonly #wallClock: Clock;
  readonly #byId: Batcher<string, StoredSession | undefined>;
  readonly #bySelector: Batcher<string, StoredSession | undefined>;
  /**
   * Sessions rotated by this process, with the time when their sealed successor becomes useless.
   */
  readonly #rotated = new LruMap<string, number>(spentMax);

  constructor(options: SessionsOptions) {
    this.#options = options;
    this.#db = options.db;
    this.#wallClock = options.wallClock ?? Date.now;
    this.#byId = Batcher.forDatabase(this.#db, (ids) => findSessions(this.#db, 'id', ids));
    this.#bySelector = Batcher.forDatabase(this.#db, (selectors) =>
      findSessions(this.#db, 'selector', selectors),
    );
  }

  /**
   * Opens a session for an account whose password was just verified. Returns undefined and opens
   * none when the account has changed since it was read (new password, disabled, deleted).
   */
  async open(
    account: Account,
    client: Client,
    sign: SignAccessToken,
  ): Promise<IssuedTokens | undefined> {
    const { refreshTokens, idleMs, absoluteMs, users, perUserMax } = this.#options;
    const id = randomBytes(16).toString('hex');
    const token = refreshTokens.mint();
    const { tokensValidAfter } = account;
    const accessToken = await sign({ id, user: account, tokensValidAfter }); // Before any row is written.
    const now = this.#wallClock();
    const absoluteExpiresAt = now + absoluteMs;
    const idleExpiresAt = Math.min(now + idleMs, absoluteExpiresAt);
    const ends = { now, idleExpiresAt, absoluteExpiresAt };
    const { selector } = token;
    const session = { id, userId: account.id, selector, currentHash: hashVerifier(token.verifier) };
    const surplus = await this.#db.transaction(async (tx) => {
      // Locks the user's row: a change of password happens before, and is seen, or after, and ends
      // this session like the others. In parallel, because the round trips cost more than the work.
      const [isUnchanged, others] = await Promise.all([
        users.recordLogin(account, tx),
        findLiveSessions(tx, account.id, now),
      ]);
      if (!isUnchanged) return undefined;
      const surplusIds = others.slice(perUserMax - 1).map((other) => other.id);
      const inserting = insertSession(tx, { ...session, ...ends, client });
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
   * Exchanges a refresh token for the next one (see `rotate` in rotation.ts). Throws
   * `invalid_token` for an unknown, revoked or reused token without distinction, `expired_token`,
   * or `service_unavailable`.
   */
  async rotate(text: unknown, client: Client, sign: SignAccessToken): Promise<IssuedTokens> {
    const token = parseRefreshToken(text);
    const { refreshTokens, graceMs, idleMs } = this.#options;
    const findBySelector = (selector: string) => this.#bySelector.run(selector);
    const timing = { wallClock: this.#wallClock, graceMs, idleMs };
    const endReused = (id: string) => this.#endOne(id, 'reuse');
    const parts = { db: this.#db, findBySelector, endReused, refreshTokens, ...timing };
    const rotation = await rotate(parts, token, client, sign);
    await this.#handleRotation(rotation, client);
    if (rotation.outcome === 'rotated') this.#trackRotated(rotation.session.id);
    if (rotation.outcome !== 'rotated' && rotation.outcome !== 'replayed')
      throw toFailure(rotation);
    return {
      accessToken: rotation.accessToken,
      refreshToken: formatRefreshToken(rotation.successor),
      refreshTokenExpiresInMs: rotation.idleExpiresAt - this.#wallClock(),
      sessionId: rotation.session.id,
    };
  }

  /**
   * Finds a session unless it is revoked or expired, or its user disabled or deleted. Batched
   * query.
   */
  async findLive(sessionId: string): Promise<LiveSession | undefined> {
    const session = await this.#byId.run(sessionId);
    if (session === undefined || getEndState(session, this.#wallClock()) !== undefined)
      return undefined;
    const { id, user, tokensValidAfter, idleExpiresAt, absoluteExpiresAt } = session;
    const expiresAt = Math.min(idleExpiresAt, absoluteExpiresAt);
    return { id, userId: user.id, expiresAt, user, tokensValidAfter };
  }

  /** Lists the live sessions of a user, most recently used first. */
  async list(userId: string): Promise<SessionSummary[]> {
    return findLiveSessions(this.#db, userId, this.#wallClock());
  }

  /** Whether the user has a live session that was last used from this IP key. */
  async hasSessionFrom(userId: string, ipKey: string): Promise<boolean> {
    return hasLiveSession(this.#db, { userId, ipKey, now: this.#wallClock() });
  }

  /** Ends a session. Returns false when it had already ended. */
  async end(sessionId: string, reason: EndReason): Promise<boolean> {
    const hasEnded = await this.#endOne(sessionId, reason);
    if (hasEnded) await this.#options.onEnded({ sessionIds: [sessionId], reason });
    return hasEnded;
  }

  /**
   * Ends all sessions of a user, or all but `except`, and returns their ids. `first` runs earlier
   * in the same transaction; it should update the user's row, whose lock delays new logins.
   */
  async endAll(
    userId: string,
    reason: EndReason,
    { except, first }: { except?: string; first?: (tx: Database) => Promise<unknown> } = {},
  ): Promise<readonly string[]> {
    const sessionIds = await this.#db.transaction(async (tx) => {
      await first?.(tx);
      const ids = (await findUnrevokedIds(tx, userId)).filter((id) => id !== except);
      await this.#endInTransaction(tx, ids, reason, this.#wallClock());
      return ids;
    });
    if (sessionIds.length > 0) await this.#options.onEnded({ sessionIds, reason });
    return sessionIds;
  }

  /** One batch of housekeeping; answers how many rows went. Meant for a timer. */
  async deleteEnded(): Promise<number> {
    const now = this.#wallClock();
    const spent = [...this.#rotated].filter(([, until]) => until < now).map(([id]) => id);
    const ids = spent.slice(0, clearMax);
    if (ids.length > 0) await clearSuccessors(this.#db, ids, now);
    for (const id of ids) {
      if ((this.#rotated.get(id) ?? now) < now) this.#rotated.delete(id); // Not if rotated meanwhile.
    }
    return deleteEnded(this.#db, now - day);
  }

  async #endOne(sessionId: string, reason: EndReason): Promise<boolean> {
    const count = await this.#db.transaction((tx) =>
      this.#endInTransaction(tx, [sessionId], reason, this.#wallClock()),
    );
    return count > 0;
  }

  /** Answers how many it ended. Sessions that had ended need no second entry: theirs is in the log. */
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

  #trackRotated(sessionId: string): void {
    // Over the limit a sealed successor stays until the next rotation. Only the holder of the spent
    // token could open it, and that token is rejected.
    this.#rotated.set(sessionId, this.#wallClock() + this.#options.graceMs);
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
    if (rotation.ended) await onEnded({ sessionIds: [rotation.session.id], reason: 'reuse' });
  }
}

function toFailure({ outcome, session }: Rotation): Failure {
  if (outcome !== 'expired' || session === undefined) {
    return new Failure('invalid_token', 'Cannot refresh: the token is invalid');
  }
  const expiresAt = Math.min(session.idleExpiresAt, session.absoluteExpiresAt);
  const info = { expiresAt: new Date(expiresAt).toISOString() }; // The format that clients expect.
  return new Failure('expired_token', 'Cannot refresh: the token is expired', { info });
}
