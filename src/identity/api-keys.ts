import type { Clock } from '../clock.js';
import { type Database, list, type Sql, sql, UniqueViolation } from '../db/database.js';
import { Failure } from '../errors.js';
import type { KeyRefusal, Publisher } from '../event-log/log-store.js';
import type { AppendControlEntries } from '../event-log/open.js';
import { Audit } from '../logging/audit.js';
import type { Logger } from '../logging/logger.js';
import { Batcher } from '../util/batcher.js';
import { LruMap } from '../util/lru-map.js';
import type { Rate } from '../util/token-bucket.js';
import { type ApiKey, isScope, type KeyLimits } from './api-key.js';
import {
  assertPrefixIsSet,
  type GivenLimits,
  parseKeyName,
  parseLimits,
  parseScopes,
} from './key-limits.js';
import { createKey, hasHash, hashKey, parseKeyId } from './key-text.js';

/**
 * Admits a credential whose verification is expensive, and counts it as invalid until the returned function
 * is called. Call that function if the credential is valid or could not be verified. Throws
 * `too_many_requests` for a client with too many invalid credentials.
 */
export type AdmitUnverified = () => () => void;

interface Row {
  readonly id: string;
  readonly name: string;
  readonly key_hash: string;
  readonly scopes: string;
  readonly user_prefix: string | null;
  /** JSON. */
  readonly topics: string | null;
  readonly expires_at: number | null;
  readonly rate_max: number | null;
  readonly rate_ms: number | null;
  readonly created_at: number;
  readonly last_used_at: number | null;
  readonly revoked_at: number | null;
  /** Absent in lists. */
  readonly head_seq?: number | null;
}

const columns = sql`id, name, key_hash, scopes, user_prefix, topics, expires_at, rate_max, rate_ms,
  created_at, last_used_at, revoked_at`;
const lastUsedIntervalMs = 60_000;
const listMax = 1000;
const knownMax = 1000;

const noLimits: KeyLimits = {
  userPrefix: undefined,
  topics: undefined,
  expiresAt: undefined,
  rate: undefined,
};

const admitAll: AdmitUnverified = () => () => {};

/** Implements `PublisherKeys` of the event log. A key that does not exist counts as revoked. */
export const publisherKeys = {
  mayPublish(publishers: readonly Publisher[], now: number): Sql {
    const ids = [...new Set(publishers.map(({ keyId }) => keyId))];
    // An id has 16 characters, and a prefix has no space, so the whole is unambiguous.
    const keys = [...new Set(publishers.map((each) => `${each.keyId}${toLimitsText(each)}`))];
    return sql`(select count(*) from api_keys where id in (${list(ids)})
        and revoked_at is null and (expires_at is null or expires_at > ${now})
        and concat(id, coalesce(user_prefix, ''), ' ', coalesce(topics, '')) in (${list(keys)})
      ) = ${keys.length}`;
  },

  async findRefusals(
    db: Database,
    publishers: readonly Publisher[],
    now: number,
  ): Promise<readonly (KeyRefusal | undefined)[]> {
    const rows = await db.query<Pick<Row, 'id' | 'user_prefix' | 'topics' | 'expires_at'>>(
      sql`select id, user_prefix, topics, expires_at from api_keys
        where id in (${list(publishers.map(({ keyId }) => keyId))}) and revoked_at is null`,
    );
    const rowsById = new Map(rows.map((row) => [row.id, row]));
    return publishers.map((publisher) => {
      const row = rowsById.get(publisher.keyId);
      if (row === undefined) return 'revoked';
      if (isExpired(row, now)) return 'expired';
      const stored = `${row.user_prefix ?? ''} ${row.topics ?? ''}`;
      return stored === toLimitsText(publisher) ? undefined : 'limits_changed';
    });
  },
};

/** Returns the limits that events were checked against, as they are stored: the prefix and the patterns. */
function toLimitsText({ userPrefix = '', topicPatterns }: Publisher): string {
  return `${userPrefix} ${topicPatterns === undefined ? '' : JSON.stringify(topicPatterns)}`;
}

/** A valid key that a request has presented. */
export interface VerifiedKey extends ApiKey {
  /** Number of the newest entry of the event log in the snapshot in which the key was read. */
  readonly headSeq: number;
}

export interface ApiKeysOptions {
  readonly db: Database;
  readonly log: Logger;
  readonly wallClock?: Clock;
  /** SQL that selects `VerifiedKey.headSeq`. Commands, which verify no key, can omit it. */
  readonly headSeqSql?: Sql;
  /**
   * Appends to the event log in the transaction that revokes a key, so that each event of the key is
   * either numbered before the revocation or rejected. After this step the transaction waits for no
   * other lock.
   */
  readonly appendControlEntries: AppendControlEntries;
}

/**
 * Manages API keys, the credentials of backends, in the table `api_keys`. The text of a key is
 * `hk_<id, 16 hex>_<secret, base64url of 32 bytes>`; only its SHA-256 is stored.
 */
export class ApiKeys {
  readonly #db: Database;
  readonly #log: Logger;
  readonly #audit: Audit;
  readonly #wallClock: Clock;
  readonly #appendControlEntries: ApiKeysOptions['appendControlEntries'];
  readonly #headSeqSql: Sql;
  readonly #lookups: Batcher<string, Row | undefined>;
  /**
   * The hashes of keys that were valid when they were loaded or last used, by id. A key keeps its hash, but
   * can be revoked.
   */
  readonly #knownHashes = new LruMap<string, string>(knownMax);

  constructor({ db, log, wallClock = Date.now, appendControlEntries, headSeqSql }: ApiKeysOptions) {
    this.#appendControlEntries = appendControlEntries;
    this.#db = db;
    this.#log = log;
    this.#audit = new Audit({ log });
    this.#wallClock = wallClock;
    this.#headSeqSql = headSeqSql ?? sql`0`;
    this.#lookups = Batcher.forDatabase(db, (ids) => this.#findRows(ids));
  }

  /** Loads the newest 1000 keys, so that their first use needs no admission (see `verify`). */
  async loadKnown(): Promise<void> {
    const rows = await this.#db.query<Pick<Row, 'id' | 'key_hash'>>(
      sql`select id, key_hash from api_keys
        where revoked_at is null and (expires_at is null or expires_at > ${this.#wallClock()})
        order by created_at desc limit ${knownMax}`,
    );
    for (const row of rows) this.#knownHashes.set(row.id, row.key_hash);
  }

  /**
   * Creates a key. The text of the key is returned only here. Throws `invalid_request` for an invalid name, scope
   * or limit (see `parseKeyName`, `parseScopes`, `parseLimits`), and for the scope `tickets` without a user
   * prefix. Throws `conflict` for a name that is in use.
   */
  async create({
    name: givenName,
    scopes: givenScopes,
    ...givenLimits
  }: GivenLimits & { name: string; scopes: readonly string[] }): Promise<ApiKey & { key: string }> {
    const name = parseKeyName(givenName);
    const scopes = parseScopes(givenScopes);
    assertPrefixIsSet(scopes, givenLimits);
    const createdAt = this.#wallClock();
    const limits = { ...noLimits, ...parseLimits(givenLimits, createdAt) };
    const { id, key } = createKey();
    const { userPrefix = null, topics, expiresAt = null, rate } = limits;
    try {
      await this.#db.execute(
        sql`insert into api_keys (id, name, key_hash, scopes,
            user_prefix, topics, expires_at, rate_max, rate_ms, created_at)
          values (${id}, ${name}, ${hashKey(key)}, ${scopes.join(',')},
            ${userPrefix}, ${formatTopics(topics)}, ${expiresAt}, ${rate?.count ?? null}, ${rate?.perMs ?? null}, ${createdAt})`,
      );
    } catch (cause) {
      if (!(cause instanceof UniqueViolation)) throw cause;
      const reason = (await this.#isRevoked(name))
        ? 'a revoked key keeps the name: choose another one'
        : 'the name is taken';
      throw new Failure('conflict', `Cannot create key: ${reason}`, { cause });
    }
    this.#audit.record('authn_token_created', { keyId: id, reason: scopes.join(',') });
    const times = { createdAt, lastUsedAt: undefined, revokedAt: undefined };
    return { id, name, scopes, ...limits, ...times, key };
  }

  /** Returns whether a revoked key has this name. */
  async #isRevoked(name: string): Promise<boolean> {
    const rows = await this.#db.query(
      sql`select id from api_keys where name = ${name} and revoked_at is not null`,
    );
    return rows.length > 0;
  }

  /** Lists keys, including revoked ones, oldest first, at most 1000. */
  async list(): Promise<ApiKey[]> {
    const rows = await this.#db.query<Row>(
      sql`select ${columns} from api_keys order by created_at, id limit ${listMax}`,
    );
    return rows.map(toApiKey);
  }

  /**
   * Changes the given limits of a key, by id or name. Returns false for an unknown or revoked key. Once this
   * resolves, no event outside of the new limits is accepted. Throws `invalid_request` like `create`.
   */
  async change(idOrName: string, given: GivenLimits): Promise<boolean> {
    const limits = parseLimits(given, this.#wallClock());
    const assignments: Sql[] = [];
    if ('userPrefix' in limits) assignments.push(sql`user_prefix = ${limits.userPrefix ?? null}`);
    if ('topics' in limits) assignments.push(sql`topics = ${formatTopics(limits.topics)}`);
    if ('expiresAt' in limits) assignments.push(sql`expires_at = ${limits.expiresAt ?? null}`);
    if ('rate' in limits) {
      const { count = null, perMs = null } = limits.rate ?? {};
      assignments.push(sql`rate_max = ${count}, rate_ms = ${perMs}`);
    }
    if (assignments.length === 0) {
      throw new Failure('invalid_request', 'Cannot change key: no limit is given');
    }
    const set = assignments.reduce((all, next) => sql`${all}, ${next}`);
    const ids = await this.#updateActive(idOrName, set, 'key_changed');
    const reason = Object.keys(limits).join(',');
    for (const keyId of ids) this.#audit.record('authz_change', { keyId, reason });
    return ids.length > 0;
  }

  /**
   * Revokes a key by id or name. Returns false for an unknown or already revoked key. Once this
   * resolves, no event that is published with the key is accepted.
   */
  async revoke(idOrName: string): Promise<boolean> {
    const set = sql`revoked_at = ${this.#wallClock()}`;
    const ids = await this.#updateActive(idOrName, set, 'key_revoked');
    for (const keyId of ids) this.#audit.record('authn_token_revoked', { keyId });
    return ids.length > 0;
  }

  /**
   * Returns the key with this text. Returns undefined if the key is unknown or revoked, and `expired` if it has
   * expired and is otherwise valid. Waits for one query at most. Calls `admit` before the query for a key that was
   * neither loaded nor valid when it was last used, and rethrows its error. A malformed key, and a wrong secret
   * for a known id, cost no query.
   */
  async verify(
    key: string,
    admit: AdmitUnverified = admitAll,
  ): Promise<VerifiedKey | 'expired' | undefined> {
    const id = parseKeyId(key);
    if (id === undefined) return undefined;
    const knownHash = this.#knownHashes.use(id);
    if (knownHash !== undefined && !hasHash(key, knownHash)) return undefined;
    const markVerified = knownHash === undefined ? admit() : undefined;
    const row = await this.#lookups.run(id).catch((cause: unknown) => {
      markVerified?.(); // The query failed, so the key may be valid.
      throw cause;
    });
    if (row === undefined || row.revoked_at !== null) {
      this.#knownHashes.delete(id);
      return undefined;
    }
    if (!hasHash(key, row.key_hash)) return undefined;
    if (isExpired(row, this.#wallClock())) {
      this.#knownHashes.delete(id);
      return 'expired';
    }
    markVerified?.();
    this.#knownHashes.set(id, row.key_hash);
    void this.#recordUse(row);
    return { ...toApiKey(row), headSeq: row.head_seq ?? 0 };
  }

  /** Updates a key that is not revoked, and appends the control entry. Returns the ids of updated keys. */
  async #updateActive(
    idOrName: string,
    set: Sql,
    kind: 'key_revoked' | 'key_changed',
  ): Promise<readonly string[]> {
    // Ids are stored in ASCII, and MySQL does not compare them with other texts.
    const idCondition = /^[0-9a-f]{16}$/.test(idOrName) ? sql`id = ${idOrName} or` : sql``;
    const matchingKeys = sql`(${idCondition} name = ${idOrName}) and revoked_at is null`;
    return this.#db.transaction(async (tx) => {
      const rows = await tx.query<{ id: string }>(
        sql`select id from api_keys where ${matchingKeys}`,
      );
      const count = await tx.execute(sql`update api_keys set ${set} where ${matchingKeys}`);
      if (count === 0) return [];
      const ids = rows.map(({ id }) => id);
      await this.#appendControlEntries(
        tx,
        ids.map((keyId) => ({ kind, keyId })),
      );
      return ids;
    });
  }

  async #findRows(ids: readonly string[]): Promise<(Row | undefined)[]> {
    const rows = await this.#db.query<Row>(
      sql`select ${columns}, ${this.#headSeqSql} as head_seq from api_keys where id in (${list(ids)})`,
    );
    const rowsById = new Map(rows.map((row) => [row.id, row]));
    return ids.map((id) => rowsById.get(id));
  }

  /** Stores the time of use, at most once a minute across all processes. Never rejects. */
  async #recordUse({ id, last_used_at: lastUsedAt }: Row): Promise<void> {
    const now = this.#wallClock();
    const updateBefore = now - lastUsedIntervalMs;
    if (lastUsedAt !== null && lastUsedAt > updateBefore) return;
    try {
      await this.#db.execute(
        sql`update api_keys set last_used_at = ${now}
          where id = ${id} and (last_used_at is null or last_used_at <= ${updateBefore})`,
      );
    } catch (cause) {
      this.#log.warn({ keyId: id, cause }, 'last use of API key not recorded');
    }
  }
}

function isExpired({ expires_at: expiresAt }: Pick<Row, 'expires_at'>, now: number): boolean {
  return expiresAt !== null && expiresAt <= now;
}

function toApiKey(row: Row): ApiKey {
  return {
    id: row.id,
    name: row.name,
    scopes: row.scopes.split(',').filter(isScope),
    userPrefix: row.user_prefix ?? undefined,
    topics: row.topics === null ? undefined : (JSON.parse(row.topics) as readonly string[]),
    expiresAt: row.expires_at ?? undefined,
    rate: toRate(row),
    createdAt: row.created_at,
    lastUsedAt: row.last_used_at ?? undefined,
    revokedAt: row.revoked_at ?? undefined,
  };
}

function formatTopics(topics: readonly string[] | undefined): string | null {
  return topics === undefined ? null : JSON.stringify(topics);
}

function toRate({ rate_max: count, rate_ms: perMs }: Row): Rate | undefined {
  return count === null || perMs === null ? undefined : { count, perMs };
}
