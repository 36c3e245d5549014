import type { Clock } from '../clock.js';
import { type Database, list, type Sql, sql, UniqueViolation } from '../db/database.js';
import { Failure } from '../errors.js';
import { parsePersonalName, parseUsername, toUsernameKey } from './username.js';

/** Who somebody is. */
export interface User {
  /** A whole number in decimal digits; the JWT's `sub`. */
  readonly id: string;
  readonly username: string;
  readonly firstName: string;
  readonly lastName: string;
}

/** What `Passwords` makes and checks. */
export interface PasswordDigest {
  readonly hash: string;
  readonly pepperVersion: number;
}

/** What is known of somebody. */
export interface Account extends User {
  readonly password: PasswordDigest;
  readonly passwordChangedAt: number;
  readonly disabledAt: number | undefined;
  /** Seconds; an access token issued before is void. */
  readonly tokensValidAfter: number;
  readonly lastLoginAt: number | undefined;
  readonly createdAt: number;
}

export interface NewUser {
  readonly username: string;
  readonly firstName: string;
  readonly lastName: string;
  readonly password: PasswordDigest;
}

interface Row {
  readonly id: number;
  readonly username: string;
  readonly password_hash: string;
  readonly pepper_version: number;
  readonly first_name: string;
  readonly last_name: string;
  readonly disabled_at: number | null;
  readonly tokens_valid_after: number;
  readonly password_changed_at: number;
  readonly last_login_at: number | null;
  readonly created_at: number;
}

const columns = sql`id, username, password_hash, pepper_version, first_name, last_name,
  disabled_at, tokens_valid_after, password_changed_at, last_login_at, created_at`;

const pageMax = 500;
const missingBatch = 1000;

/**
 * The table `users`. Where a method takes a `db`, it may be a transaction; what else has to end
 * with the change (sessions) is the caller's, `Accounts`.
 */
export class Users {
  readonly #db: Database;
  readonly #wallClock: Clock;

  constructor({ db, wallClock = Date.now }: { db: Database; wallClock?: Clock }) {
    this.#db = db;
    this.#wallClock = wallClock;
  }

  /** By any spelling of the name. */
  async findByName(username: string): Promise<Account | undefined> {
    const key = toUsernameKey(username);
    return key === undefined ? undefined : this.#findOne(sql`where username_key = ${key}`);
  }

  async find(id: string): Promise<Account | undefined> {
    return this.#findOne(sql`where id = ${toRowId(id)}`);
  }

  /** Those of these ids that nobody has. Cheap when there are none: the database only counts. */
  async missing(ids: readonly string[]): Promise<string[]> {
    const missing: string[] = [];
    for (let start = 0; start < ids.length; start += missingBatch) {
      const batch = ids.slice(start, start + missingBatch);
      const among = sql`from users where id in (${list(batch.map(toRowId))})`;
      const [row] = await this.#db.query<{ count: number }>(sql`select count(*) as count ${among}`);
      if (row?.count === batch.length) continue;
      const found = await this.#db.query<{ id: number }>(sql`select id ${among}`);
      const known = new Set(found.map(({ id }) => String(id)));
      missing.push(...batch.filter((id) => !known.has(id)));
    }
    return missing;
  }

  /** In the order they were made, after `afterId`, at most 500. */
  async list({
    afterId = '0',
    limit = pageMax,
  }: {
    afterId?: string;
    limit?: number;
  } = {}): Promise<Account[]> {
    const count = Math.min(limit, pageMax);
    const rows = await this.#db.query<Row>(
      sql`select ${columns} from users where id > ${toRowId(afterId)} order by id limit ${count}`,
    );
    return rows.map(toAccount);
  }

  /** Throws `invalid_request` for a name that cannot be, `conflict` for one that is taken. */
  async create({ password, ...given }: NewUser): Promise<Account> {
    const { username, key } = parseUsername(given.username);
    const firstName = parsePersonalName(given.firstName, 'firstName');
    const lastName = parsePersonalName(given.lastName, 'lastName');
    const now = this.#wallClock();
    try {
      await this.#db.execute(
        sql`insert into users (username, username_key, password_hash, pepper_version, first_name,
            last_name, tokens_valid_after, password_changed_at, created_at, updated_at)
          values (${username}, ${key}, ${password.hash}, ${password.pepperVersion}, ${firstName},
            ${lastName}, 0, ${now}, ${now}, ${now})`,
      );
    } catch (cause) {
      if (!(cause instanceof UniqueViolation)) throw cause;
      throw new Failure('conflict', 'Cannot create user: the username is taken', { cause });
    }
    const account = await this.#findOne(sql`where username_key = ${key}`);
    if (account === undefined) throw new Error('Cannot create user: it was deleted at once');
    return account;
  }

  /**
   * Notes a login and holds the user's row to the end of the transaction. False when the account
   * is no longer as it was read: the password was changed, or it was disabled or deleted.
   */
  async recordLogin({ id, passwordChangedAt }: Account, db: Database): Promise<boolean> {
    const count = await db.execute(
      sql`update users set last_login_at = ${this.#wallClock()} where id = ${toRowId(id)}
        and password_changed_at = ${passwordChangedAt} and disabled_at is null`,
    );
    return count === 1;
  }

  /** A new password; access tokens issued until now are void. False when there is no such user. */
  async setPassword(id: string, password: PasswordDigest, db = this.#db): Promise<boolean> {
    const now = this.#wallClock();
    // Always another time than before, for logins under way compare it (`recordLogin`). The
    // columns of MySQL change from left to right, so none is used after it is set.
    const count = await db.execute(
      sql`update users set password_hash = ${password.hash},
          pepper_version = ${password.pepperVersion},
          password_changed_at = case when password_changed_at < ${now} then ${now}
            else password_changed_at + 1 end,
          tokens_valid_after = ${getTokensValidAfter(now)}, updated_at = ${now}
        where id = ${toRowId(id)}`,
    );
    return count === 1;
  }

  /** The same password under a newer cost or pepper; nothing when it was changed meanwhile. */
  async replaceDigest(id: string, old: PasswordDigest, next: PasswordDigest): Promise<boolean> {
    const count = await this.#db.execute(
      sql`update users set password_hash = ${next.hash}, pepper_version = ${next.pepperVersion}
        where id = ${toRowId(id)} and password_hash = ${old.hash}`,
    );
    return count === 1;
  }

  /** Access tokens issued until now are void. */
  async endAccessTokens(id: string, db = this.#db): Promise<void> {
    const after = getTokensValidAfter(this.#wallClock());
    await db.execute(sql`update users set tokens_valid_after = ${after} where id = ${toRowId(id)}`);
  }

  /** Nobody can log in as this user. False when there is no such user, or it was so already. */
  async disable(id: string, db = this.#db): Promise<boolean> {
    const now = this.#wallClock();
    const count = await db.execute(
      sql`update users set disabled_at = ${now}, tokens_valid_after = ${getTokensValidAfter(now)},
        updated_at = ${now} where id = ${toRowId(id)} and disabled_at is null`,
    );
    return count === 1;
  }

  async enable(id: string): Promise<boolean> {
    const count = await this.#db.execute(
      sql`update users set disabled_at = null, updated_at = ${this.#wallClock()}
        where id = ${toRowId(id)} and disabled_at is not null`,
    );
    return count === 1;
  }

  /** Takes sessions and stream tokens with it. False when there is no such user. */
  async delete(id: string): Promise<boolean> {
    return (await this.#db.execute(sql`delete from users where id = ${toRowId(id)}`)) === 1;
  }

  async #findOne(where: Sql): Promise<Account | undefined> {
    const [row] = await this.#db.query<Row>(sql`select ${columns} from users ${where}`);
    return row === undefined ? undefined : toAccount(row);
  }
}

/** The number of a user id; 0, which nobody has, for what is none. */
export function toRowId(id: string): number {
  return /^[1-9]\d{0,14}$/.test(id) ? Number(id) : 0;
}

/**
 * The first second all of whose tokens are new, for `iat` counts whole seconds; new tokens are
 * issued no earlier than it (`notBeforeSeconds`).
 */
function getTokensValidAfter(now: number): number {
  return Math.floor(now / 1000) + 1;
}

function toAccount(row: Row): Account {
  return {
    id: String(row.id),
    username: row.username,
    firstName: row.first_name,
    lastName: row.last_name,
    password: { hash: row.password_hash, pepperVersion: row.pepper_version },
    passwordChangedAt: row.password_changed_at,
    disabledAt: row.disabled_at ?? undefined,
    tokensValidAfter: row.tokens_valid_after,
    lastLoginAt: row.last_login_at ?? undefined,
    createdAt: row.created_at,
  };
}
