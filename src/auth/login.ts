import { Failure } from '../errors.js';
import type { Client } from '../http/client.js';
import { toNetworkKey } from '../http/ip-key.js';
import type { Audit } from '../logging/audit.js';
import type { Logger } from '../logging/logger.js';
import type { SignAccessToken } from './access-token-signer.js';
import type { AttemptOutcome } from './attempt-limiter.js';
import type { PasswordAttempt, PasswordAttemptLimiter } from './password-attempt-limiter.js';
import type { Passwords } from './passwords/passwords.js';
import type { RateLimiter } from './rate-limiter.js';
import type { IssuedTokens, Sessions } from './sessions/sessions.js';
import { toUsernameKey } from './username.js';
import type { Account, Users } from './users.js';

export interface LoginOptions {
  readonly users: Users;
  readonly sessions: Sessions;
  readonly passwords: Passwords;
  readonly rateLimiter: RateLimiter;
  readonly passwordAttempts: PasswordAttemptLimiter;
  readonly audit: Audit;
  readonly log: Logger;
}

export interface LoginRequest {
  readonly username: string;
  readonly password: string;
  readonly client: Client;
  readonly signal: AbortSignal;
}

/**
 * Verifies a password and opens a session. For an unknown name, a disabled account and a wrong
 * password the response is the same, after the same work: one argon2 verification.
 */
export class Login {
  readonly #options: LoginOptions;

  constructor(options: LoginOptions) {
    this.#options = options;
  }

  /**
   * Returns the tokens of a new session. Throws `bad_credentials`, `too_many_requests`, or
   * `service_unavailable` when the queue of the auth threads is full or too slow. Rejects with the reason
   * of `signal` when it aborts before the verification starts.
   */
  async open(request: LoginRequest, sign: SignAccessToken): Promise<IssuedTokens> {
    const { client } = request;
    this.#options.rateLimiter.admit('login', client);
    const account = await this.#options.users.findByName(request.username);
    const attempt = await this.#beginAttempt(request, account);
    const isCorrect = await this.#verify(request, account, attempt);
    if (account === undefined || account.disabledAt !== undefined || !isCorrect) {
      throw this.#refuse(request, account, isCorrect);
    }
    void this.#rehash(account, request.password);
    const tokens = await this.#options.sessions.open(account, client, sign);
    if (tokens === undefined) throw this.#refuse(request, account, isCorrect);
    const { failures } = attempt;
    const event = failures > 0 ? 'authn_login_successafterfail' : 'authn_login_success';
    const fields = { client, userId: account.id, sessionId: tokens.sessionId, failures };
    this.#options.audit.record(event, fields);
    return tokens;
  }

  async #beginAttempt(
    request: LoginRequest,
    account: Account | undefined,
  ): Promise<PasswordAttempt> {
    const { passwordAttempts, sessions, audit } = this.#options;
    const { client, signal, username } = request;
    const userId = account?.id ?? '0'; // No user has id 0; the same query runs for an unknown user.
    try {
      return await passwordAttempts.begin({
        // All invalid names share one key, which no user has.
        userKey: toUsernameKey(username) ?? '\0',
        ipKey: client.ipKey,
        hasSession: () => sessions.hasSessionFrom(userId, client.ipKey),
        signal,
      });
    } catch (refusal) {
      if (refusal instanceof Failure && refusal.name === 'too_many_requests') {
        audit.record('authn_login_lock', { client, ...this.#auditIdentity(username, account) });
      }
      throw refusal;
    }
  }

  /**
   * Verifies the password and settles the attempt. The right password of a disabled account counts as a
   * failure too; otherwise a missing 429 would disclose that the password is right. An attempt without a
   * verification, for example because the queue is full, does not count.
   */
  async #verify(
    { username, password, client, signal }: LoginRequest,
    account: Account | undefined,
    attempt: PasswordAttempt,
  ): Promise<boolean> {
    let outcome: AttemptOutcome = 'unknown';
    try {
      const options = { signal, owner: toNetworkKey(client.ipKey) ?? client.ipKey };
      const isCorrect = await this.#options.passwords.verify(password, account?.password, options);
      outcome = isCorrect && account?.disabledAt === undefined ? 'right' : 'wrong';
      return isCorrect;
    } finally {
      const isBlocking = attempt.settle(outcome);
      const fields = {
        client,
        failures: attempt.failures + 1,
        ...this.#auditIdentity(username, account),
      };
      if (isBlocking) this.#options.audit.record('authn_login_fail_max', fields);
    }
  }

  /** Audits the failed login and returns its failure. */
  #refuse(
    { username, client }: LoginRequest,
    account: Account | undefined,
    isCorrect: boolean,
  ): Failure {
    const knownUserReason = isCorrect
      ? 'account disabled, or changed during the login'
      : 'wrong password';
    const reason = account === undefined ? 'unknown user' : knownUserReason;
    const fields = { client, reason, ...this.#auditIdentity(username, account) };
    this.#options.audit.record('authn_login_fail', fields);
    return new Failure('bad_credentials', 'Username or password is incorrect');
  }

  /** Rehashes the password in the background when its cost or pepper is outdated. Never rejects. */
  async #rehash(account: Account, password: string): Promise<void> {
    const { passwords, users, log } = this.#options;
    if (!passwords.needsRehash(account.password)) return;
    try {
      await users.replaceDigest(account.id, account.password, await passwords.hash(password));
    } catch (cause) {
      log.warn({ userId: account.id, cause }, 'password not rehashed');
    }
  }

  #auditIdentity(username: string, account: Account | undefined) {
    if (account !== undefined) return { userId: account.id };
    return { unknownUser: this.#options.audit.pseudonym(username) };
  }
}
