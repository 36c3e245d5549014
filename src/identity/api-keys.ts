import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import type { Clock } from '../clock.js';
import { type Database, list, type Sql, sql, UniqueViolation } from '../db/database.js';
import { Failure } from '../errors.js';
import type { ControlEntry } from '../events/control-entry.js';
import { Audit } from '../logging/audit.js';
import type { Logger } from '../logging/logger.js';
import { Batcher } from '../util/batcher.js';
import { LruMap } from '../util/lru-map.js';

/** Permissions that a key can have. */
export const scopes = ['publish', 'metrics'] as const;

export type Scope = (typeof scopes)[number];

/** An API key without its secret. Times are in epoch milliseconds. */
export interface ApiKey {
  /** 16 hex digits. Not secret. */
  readonly id: string;
  readonly name: string;
  readonly scopes: readonly Scope[];
  readonly createdAt: number;
  /** Updated at most once a minute. */
  readonly lastUsedAt: number | undefined;
  readonly revokedAt: number | undefined;
}

/**
 * Admits a credential whose verification is expensive, and counts it as invalid until the returned function
 * is called: when it has turned out to be valid, or could not be verified. Throws `too_many_requests` for a
 * client with too many invalid credentials.
 */
export type AdmitUnverified = () => () => void;

interface Row {
  readonly id: string;
  readonly name: string;
  readonly key_hash: string;
  readonly scopes: string;
  readonly created_at: number;
  readonly last_used_at: number | null;
  readonly revoked_at: number | null;
}

const columns = sql`id, name, key_hash, scopes, created_at, last_used_at, revoked_at`;
const lastUsedIntervalMs = 60_000;
const listMax = 1000;
const knownMax = 1000;

const admitAll: AdmitUnverified = () => () => {};

export function isScope(given: string): given is Scope {
  return scopes.some((scope) => scope === given);
}

/** Implements `PublisherKeys` of the event log. A key that does not exist counts as revoked. */
export const publisherKeys = {
  areActive: (ids: readonly string[]): Sql =>
    sql`(select count(*) from api_keys where id in (${list(ids)}) and revoked_at is null)
      = ${ids.length}`,

  async findActive(db: Database, ids: readonly string[]): Promise<readonly string[]> {
    const rows = await db.query<{ id: string }>(
      sql`select id from api_keys where id in (${list(ids)}) and revoked_at is null`,
    );
    return rows.map(({ id }) => id);
  },
};

export interface ApiKeysOptions {
  readonly db: Database;
  readonly log: Logger;
  readonly wallClock?: Clock;
  /**
   * Appends to the event log in the transaction that revokes a key, so that each event of the key is
   * either numbered before the revocation or rejected. After this step the transaction waits for no
   * other lock.
   */
  readonly appendControlEntries: (tx: Database, entries: readonly ControlEntry[]) => Promise<void>;
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
  readonly #lookups: Batcher<string, Row | undefined>;
  /**
   * The hashes of keys that were valid when they were loaded or last used, by id. A key keeps its hash, but
   * can be revoked.
   */
  readonly #knownHashes = new LruMap<string, string>(knownMax);

  constructor({ db, log, wallClock = Date.now, appendControlEntries }: ApiKeysOptions) {
    this.#appendControlEntries = appendControlEntries;
    this.#db = db;
    this.#log = log;
    this.#audit = new Audit({ log });
    this.#wallClock = wallClock;
    this.#lookups = Batcher.forDatabase(db, (ids) => this.#findRows(ids));
  }

  /** Loads the newest 1000 keys, so that their first use needs not be admitted (see `verify`). */
  async loadKnown(): Promise<void> {
    const rows = await this.#db.query<Pick<Row, 'id' | 'key_hash'>>(
      sql`select id, key_hash from api_keys where revoked_at is null
        order by created_at desc limit ${knownMax}`,
    );
    for (const row of rows) this.#knownHashes.set(row.id, row.key_hash);
  }

  /**
   * Creates a key; its text is returned only here. Throws `invalid_request` for a name that is not
   * 1 to 64 characters of `A-Z a-z 0-9 . _ -` and for no or an unknown scope, `conflict` for a name in use.
   */
  async create(given: {
    name: string;
    scopes: readonly string[];
  }): Promise<ApiKey & { key: string }> {
    const name = parseName(given.name);
    const keyScopes = parseScopes(given.scopes);
    const id = randomBytes(8).toString('hex');
    const key = `hk_${id}_${randomBytes(32).toString('base64url')}`;
    const createdAt = this.#wallClock();
    try {
      await this.#db.execute(
        sql`insert into api_keys (id, name, key_hash, scopes, created_at)
          values (${id}, ${name}, ${hashKey(key)}, ${keyScopes.join(',')}, ${createdAt})`,
      );
    } catch (cause) {
      if (!(cause instanceof UniqueViolation)) throw cause;
      throw new Failure('conflict', 'Cannot create key: the name is taken', { cause });
    }
    this.#audit.record('authn_token_created', { keyId: id, reason: keyScopes.join(',') });
    const times = { createdAt, lastUsedAt: undefined, revokedAt: undefined };
    return { id, name, scopes: keyScopes, ...times, key };
  }

  /** Lists keys, including revoked ones, oldest first, at most 1000. */
  async list(): Promise<ApiKey[]> {
    const rows = await this.#db.query<Row>(
      sql`select ${columns} from api_keys order by created_at, id limit ${listMax}`,
    );
    return rows.map(toApiKey);
  }

  /**
   * Revokes a key by id or name. Returns false for an unknown or already revoked key. Once this
   * resolves, no event that is published with the key is accepted.
   */
  async revoke(idOrName: string): Promise<boolean> {
    // Ids are stored in ASCII, and MySQL does not compare them with other texts.
    const isId = /^[0-9a-f]{16}$/.test(idOrName) ? sql`id = ${idOrName} or` : sql``;
    const matchingKeys = sql`(${isId} name = ${idOrName}) and revoked_at is null`;
    const ids = await this.#db.transaction(async (tx) => {
      const rows = await tx.query<{ id: string }>(
        sql`select id from api_keys where ${matchingKeys}`,
      );
      const count = await tx.execute(
        sql`update api_keys set revoked_at = ${this.#wallClock()} where ${matchingKeys}`,
      );
      if (count === 0) return [];
      const revoked = rows.map(({ id }) => id);
      await this.#appendControlEntries(
        tx,
        revoked.map((keyId) => ({ kind: 'key_revoked', keyId })),
      );
      return revoked;
    });
    for (const id of ids) this.#audit.record('authn_token_revoked', { keyId: id });
    return ids.length > 0;
  }

  /**
   * Returns the key with this text; undefined if it is unknown or revoked. Waits for one query at most. For a
   * key that was neither loaded nor valid when it was last used, `admit` must admit the query; it may throw. A
   * malformed key, and a wrong secret for a known id, cost no query.
   */
  async verify(key: string, admit: AdmitUnverified = admitAll): Promise<ApiKey | undefined> {
    const id = keyPattern.exec(key)?.[1];
    if (id === undefined) return undefined;
    const knownHash = this.#knownHashes.use(id);
    if (knownHash !== undefined && !hasHash(key, knownHash)) return undefined;
    const markVerified = knownHash === undefined ? admit() : undefined;
    const row = await this.#lookups.run(id).catch((cause: unknown) => {
      markVerified?.(); // Not known to be invalid.
      throw cause;
    });
    if (row === undefined || row.revoked_at !== null) {
      this.#knownHashes.delete(id);
      return undefined;
    }
    if (!hasHash(key, row.key_hash)) return undefined;
    markVerified?.();
    this.#knownHashes.set(id, row.key_hash);
    void this.#recordUse(row);
    return toApiKey(row);
  }

  async #findRows(ids: readonly string[]): Promise<(Row | undefined)[]> {
    const rows = await this.#db.query<Row>(
      sql`select ${columns} from api_keys where id in (${list(ids)})`,
    );
    const found = new Map(rows.map((row) => [row.id, row]));
    return ids.map((id) => found.get(id));
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

/** The last character has two unused bits, which are zero in every key that was created. */
const keyPattern = /^hk_([0-9a-f]{16})_[\w-]{42}[AEIMQUYcgkosw048]$/;

function hasHash(key: string, hash: string): boolean {
  return timingSafeEqual(Buffer.from(hashKey(key)), Buffer.from(hash));
}

function hashKey(key: string): string {
  return createHash('sha256').update(key).digest('hex');
}

function parseName(name: string): string {
  if (/^[\w.-]{1,64}$/.test(name)) return name;
  const message = 'Cannot create key: the name must be 1 to 64 letters, digits, dots, _ or -';
  throw new Failure('invalid_request', message, { info: { body: ['name'] } });
}

function parseScopes(given: readonly string[]): Scope[] {
  const known = scopes.filter((scope) => given.includes(scope));
  if (known.length > 0 && given.every(isScope)) return known;
  const message = `Cannot create key: each scope must be one of ${scopes.join(', ')}`;
  throw new Failure('invalid_request', message, { info: { body: ['scopes'], allowed: scopes } });
}

function toApiKey(row: Row): ApiKey {
  return {
    id: row.id,
    name: row.name,
    scopes: row.scopes.split(',').filter(isScope),
    createdAt: row.created_at,
    lastUsedAt: row.last_used_at ?? undefined,
    revokedAt: row.revoked_at ?? undefined,
  };
}
