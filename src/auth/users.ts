import type { Clock } from '../clock.js';
import { type Database, type Sql, sql, UniqueViolation } from '../db/database.js';
import { Failure } from '../errors.js';
import { formatTopicRights, parseStoredRights, type TopicRights } from '../events/topic-rights.js';
import { parsePersonalName, parseUsername, toUsernameKey } from './username.js';

/** Identity of a user. */
export interface User {
  /** An integer in decimal digits; the JWT's `sub`. */
  readonly id: string;
  readonly username: string;
  readonly firstName: string;
  readonly lastName: string;
}

/** A stored hash, created and verified by `Passwords`. */
export interface PasswordDigest {
  readonly hash: string;
  readonly pepperVersion: number;
}

/** A user and the state of the user's account. Times are in epoch milliseconds. */
export interface Account extends User {
  readonly password: PasswordDigest;
  readonly passwordChangedAt: number;
  readonly disabledAt: number | undefined;
  readonly lastLoginAt: number | undefined;
  readonly createdAt: number;
  /** The topics to which the user may listen, besides those that everybody may. */
  readonly rights: TopicRights;
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
  readonly password_changed_at: number;
  readonly last_login_at: number | null;
  readonly created_at: number;
  readonly rights: string | null;
}

const columns = sql`id, username, password_hash, pepper_version, first_name, last_name,
  disabled_at, password_changed_at, last_login_at, created_at, rights`;

const pageMax = 500;

/**
 * Reads and writes the table `users`. A `db` parameter may be a transaction. The caller
 * (`Accounts`) ends the sessions that a change invalidates.
 */
export class Users {
  readonly #db: Database;
  readonly #wallClock: Clock;

  constructor({ db, wallClock = Date.now }: { db: Database; wallClock?: Clock }) {
    this.#db = db;
    this.#wallClock = wallClock;
  }

  /** Finds a user by any spelling of the username (see `toUsernameKey`). */
  async findByName(username: string): Promise<Account | undefined> {
    const key = toUsernameKey(username);
    return key === undefined ? undefined : this.#findOne(sql`where username_key = ${key}`);
  }

  async find(id: string): Promise<Account | undefined> {
    return this.#findOne(sql`where id = ${toRowId(id)}`);
  }

  /** Lists users after `afterId`, in the order of creation, at most 500. */
  async list({
    afterId = '0',
    limit = pageMax,
  }: {
    afterId?: string;
    limit?: number;
  } = {}): Promise<Account[]> {
    const rowsMax = Math.min(limit, pageMax);
    const rows = await this.#db.query<Row>(
      sql`select ${columns} from users where id > ${toRowId(afterId)} order by id limit ${rowsMax}`,
    );
    return rows.map(toAccount);
  }

  /**
   * Creates a user. Throws `invalid_request` for an invalid name, `conflict` for a taken one.
   */
  async create({ password, ...given }: NewUser): Promise<Account> {
    const { username, key } = parseUsername(given.username);
    const firstName = parsePersonalName(given.firstName, 'firstName');
    const lastName = parsePersonalName(given.lastName, 'lastName');
    const now = this.#wallClock();
    try {
      await this.#db.execute(
        sql`insert into users (username, username_key, password_hash, pepper_version, first_name,
            last_name, password_changed_at, created_at, updated_at)
          values (${username}, ${key}, ${password.hash}, ${password.pepperVersion}, ${firstName},
            ${lastName}, ${now}, ${now}, ${now})`,
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
   * Records a login and locks the user's row until the end of the transaction. Returns false when
   * the account has changed since it was read: new password, disabled, or deleted.
   */
  async recordLogin({ id, passwordChangedAt }: Account, db: Database): Promise<boolean> {
    const count = await db.execute(
      sql`update users set last_login_at = ${this.#wallClock()} where id = ${toRowId(id)}
        and password_changed_at = ${passwordChangedAt} and disabled_at is null`,
    );
    return count === 1;
  }

  /** Sets a password. Returns false for an unknown user. */
  async setPassword(id: string, password: PasswordDigest, db = this.#db): Promise<boolean> {
    const now = this.#wallClock();
    // `password_changed_at` always increases, because `recordLogin` compares it. No column is read
    // after it is set, because MySQL assigns from left to right.
    const count = await db.execute(
      sql`update users set password_hash = ${password.hash},
          pepper_version = ${password.pepperVersion},
          password_changed_at = case when password_changed_at < ${now} then ${now}
            else password_changed_at + 1 end,
          updated_at = ${now}
        where id = ${toRowId(id)}`,
    );
    return count === 1;
  }

  /** Replaces the digest of an unchanged password. Returns false when the stored hash differs from `old`. */
  async replaceDigest(id: string, old: PasswordDigest, next: PasswordDigest): Promise<boolean> {
    const count = await this.#db.execute(
      sql`update users set password_hash = ${next.hash}, pepper_version = ${next.pepperVersion}
        where id = ${toRowId(id)} and password_hash = ${old.hash}`,
    );
    return count === 1;
  }

  /** Replaces the rights of a user. Returns false for an unknown user. */
  async setRights(id: string, rights: TopicRights, db = this.#db): Promise<boolean> {
    const stored = rights.size === 0 ? null : formatTopicRights(rights);
    const count = await db.execute(
      sql`update users set rights = ${stored}, updated_at = ${this.#wallClock()}
        where id = ${toRowId(id)}`,
    );
    return count === 1;
  }

  /** Locks the rights of a user until the end of the transaction. Returns whether they are these, as stored. */
  async confirmRights(id: string, storedRights: string | null, tx: Database): Promise<boolean> {
    const areSame = storedRights === null ? sql`rights is null` : sql`rights = ${storedRights}`;
    const count = await tx.execute(
      sql`update users set rights = rights where id = ${toRowId(id)} and ${areSame}`,
    );
    return count === 1;
  }

  /** Locks the user's row until the end of the transaction, which delays logins of the user. */
  async lock(id: string, tx: Database): Promise<void> {
    await tx.execute(sql`update users set updated_at = updated_at where id = ${toRowId(id)}`);
  }

  /** Rejects logins of this user. Returns false for an unknown or already disabled user. */
  async disable(id: string, db = this.#db): Promise<boolean> {
    const now = this.#wallClock();
    const count = await db.execute(
      sql`update users set disabled_at = ${now}, updated_at = ${now}
        where id = ${toRowId(id)} and disabled_at is null`,
    );
    return count === 1;
  }

  /** Allows logins again. Returns false for an unknown or already enabled user. */
  async enable(id: string): Promise<boolean> {
    const count = await this.#db.execute(
      sql`update users set disabled_at = null, updated_at = ${this.#wallClock()}
        where id = ${toRowId(id)} and disabled_at is not null`,
    );
    return count === 1;
  }

  /**
   * Deletes the user, with memberships, losses and revocations of topics. The database also deletes the user's
   * sessions and stream tokens. Returns false for an unknown user.
   */
  async delete(id: string): Promise<boolean> {
    return this.#db.transaction(async (tx) => {
      // The losses first: they are the lock of the user, see `transactionOfUsers`.
      await tx.execute(sql`delete from topic_losses where user_id = ${id}`);
      await tx.execute(sql`delete from topic_members where user_id = ${id}`);
      await tx.execute(sql`delete from topic_revocations where user_id = ${id}`);
      return (await tx.execute(sql`delete from users where id = ${toRowId(id)}`)) === 1;
    });
  }

  async #findOne(where: Sql): Promise<Account | undefined> {
    const [row] = await this.#db.query<Row>(sql`select ${columns} from users ${where}`);
    return row === undefined ? undefined : toAccount(row);
  }
}

/** Returns the row id of a user. Returns 0, which no row has, for a malformed user id. */
export function toRowId(id: string): number {
  return /^[1-9]\d{0,14}$/.test(id) ? Number(id) : 0;
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
    lastLoginAt: row.last_login_at ?? undefined,
    createdAt: row.created_at,
    rights: parseStoredRights(row.rights),
  };
}
