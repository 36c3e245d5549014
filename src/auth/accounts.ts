import type { Database } from '../db/database.js';
import { Failure } from '../errors.js';
import type { TopicRights } from '../events/topic-rights.js';
import type { Audit } from '../logging/audit.js';
import type { Passwords } from './passwords/passwords.js';
import type { EndReason } from './sessions/session-table.js';
import type { Sessions } from './sessions/sessions.js';
import type { Account, Users } from './users.js';

export interface AccountsOptions {
  readonly users: Users;
  readonly sessions: Sessions;
  readonly passwords: Passwords;
  readonly audit: Audit;
}

export interface NewAccount {
  readonly username: string;
  readonly password: string;
  readonly firstName: string;
  readonly lastName: string;
}

/** Changes accounts for an operator, and ends the sessions that a change invalidates. */
export class Accounts {
  readonly #options: AccountsOptions;

  constructor(options: AccountsOptions) {
    this.#options = options;
  }

  /**
   * Creates an account. Throws `invalid_request` for an invalid name or password, and `conflict`
   * for a name that is taken. `weakPassword: true` accepts any non-empty password; use it only for
   * demonstrations.
   */
  async create(given: NewAccount, { weakPassword = false } = {}): Promise<Account> {
    const { users, passwords, audit } = this.#options;
    const { username, firstName, lastName } = given;
    const checked = weakPassword ? given.password : passwords.validate(given.password, username);
    const password = await passwords.hash(checked);
    const account = await users.create({ username, firstName, lastName, password });
    audit.record('user_created', { userId: account.id });
    return account;
  }

  /**
   * Sets a new password and ends all sessions except `exceptSessionId`, whose access tokens stay valid.
   * Throws `not_found`, and `invalid_request` for an invalid password.
   */
  async setPassword(
    username: string,
    newPassword: string,
    exceptSessionId?: string,
  ): Promise<void> {
    const { users, passwords, audit } = this.#options;
    const { id, username: name } = await this.#findByName(username);
    const password = await passwords.hash(passwords.validate(newPassword, name));
    await this.#endSessions(
      id,
      'password',
      (tx) => users.setPassword(id, password, tx),
      exceptSessionId,
    );
    audit.record('authn_password_change', { userId: id });
  }

  /** Ends all sessions and rejects logins. Throws `not_found`. Idempotent. */
  async disable(username: string): Promise<void> {
    const { users, audit } = this.#options;
    const { id } = await this.#findByName(username);
    await this.#endSessions(id, 'disabled', (tx) => users.disable(id, tx));
    audit.record('user_updated', { userId: id, reason: 'disabled' });
  }

  /** Allows logins again. Throws `not_found`. Idempotent. */
  async enable(username: string): Promise<void> {
    const { id } = await this.#findByName(username);
    await this.#options.users.enable(id);
    this.#options.audit.record('user_updated', { userId: id, reason: 'enabled' });
  }

  /**
   * Replaces the rights of an account. `runInTransaction` runs the function that it gets in a transaction, in which
   * it also replaces the rights of the stream tokens, and returns its result. Throws `not_found`.
   */
  async setRights(
    username: string,
    rights: TopicRights,
    runInTransaction: (
      userId: string,
      changeAccount: (tx: Database) => Promise<boolean>,
    ) => Promise<boolean>,
  ): Promise<void> {
    const { users, audit } = this.#options;
    const { id } = await this.#findByName(username);
    const changeAccount = (tx: Database) => users.setRights(id, rights, tx);
    if (!(await runInTransaction(id, changeAccount))) throw noSuchUser();
    audit.record('authz_change', { userId: id, reason: 'rights' });
  }

  /**
   * Deletes an account and all its data. First disables it and ends all sessions, so that no login opens
   * a session before the deletion. Throws `not_found`.
   */
  async delete(username: string): Promise<void> {
    const { users, audit } = this.#options;
    const { id } = await this.#findByName(username);
    await this.#endSessions(id, 'admin', (tx) => users.disable(id, tx));
    await users.delete(id);
    audit.record('user_deleted', { userId: id });
  }

  async #findByName(username: string): Promise<Account> {
    const account = await this.#options.users.findByName(username);
    if (account === undefined) throw noSuchUser();
    return account;
  }

  async #endSessions(
    userId: string,
    reason: EndReason,
    changeAccount: (tx: Database) => Promise<unknown>,
    exceptSessionId?: string,
  ): Promise<void> {
    await this.#options.sessions.endAll(userId, reason, {
      first: changeAccount,
      ...(exceptSessionId !== undefined && { except: exceptSessionId }),
    });
  }
}

function noSuchUser(): Failure {
  return new Failure('not_found', 'Cannot find user: no such username');
}
