import { Failure } from '../errors.js';
import type { Client } from '../http/client.js';
import type { Audit } from '../logging/audit.js';
import type { Log } from '../logging/log.js';
import type { GuessOutcome } from './attempt-limiter.js';
import type { Passwords } from './passwords/passwords.js';
import type { Rates } from './rates.js';
import type { Grant, Sessions } from './sessions/sessions.js';
import type { Sign } from './sign.js';
import type { Guess, Throttle } from './throttle.js';
import { usernameKeyOf } from './username.js';
import type { Account, Users } from './users.js';

export interface LoginOptions {
  readonly users: Users;
  readonly sessions: Sessions;
  readonly passwords: Passwords;
  readonly rates: Rates;
  readonly throttle: Throttle;
  readonly audit: Audit;
  readonly log: Log;
}

export interface Attempt {
  readonly username: string;
  readonly password: string;
  readonly client: Client;
  readonly signal: AbortSignal;
}

/**
 * A password for a session. Whether a name is unknown, its account disabled or the password wrong,
 * the answer is the same, after the same work: one argon2 verification.
 */
export class Login {
  readonly #options: LoginOptions;

  constructor(options: LoginOptions) {
    this.#options = options;
  }

  /**
   * Throws `bad_credentials`, `too_many_requests`, or `service_unavailable` when there are more
   * logins than threads can check. Rejects with the reason of `signal` when it aborts in time.
   */
  async open(attempt: Attempt, sign: Sign): Promise<Grant> {
    const { client } = attempt;
    this.#options.rates.admit('login', client);
    const account = await this.#options.users.findByName(attempt.username);
    const guess = await this.#guess(attempt, account);
    const isRight = await this.#verify(attempt, account, guess);
    if (account === undefined || account.disabledAt !== undefined || !isRight) {
      throw this.#refuse(attempt, account, isRight);
    }
    void this.#renewDigest(account, attempt.password);
    const grant = await this.#options.sessions.open(account, client, sign);
    if (grant === undefined) throw this.#refuse(attempt, account, isRight);
    const { failures } = guess;
    const event = failures > 0 ? 'authn_login_successafterfail' : 'authn_login_success';
    const fields = { client, userId: account.id, sessionId: grant.sessionId, failures };
    this.#options.audit.record(event, fields);
    return grant;
  }

  async #guess(attempt: Attempt, account: Account | undefined): Promise<Guess> {
    const { throttle, sessions, audit } = this.#options;
    const { client, signal, username } = attempt;
    const userId = account?.id ?? '0';
    try {
      return await throttle.guess({
        // All names that cannot be share one key; nobody has them.
        userKey: usernameKeyOf(username) ?? '\0',
        ipKey: client.ipKey,
        hasSession: () => sessions.hasFrom(userId, client.ipKey),
        signal,
      });
    } catch (refusal) {
      if (refusal instanceof Failure && refusal.name === 'too_many_requests') {
        audit.record('authn_login_lock', { client, ...this.#whoIs(username, account) });
      }
      throw refusal;
    }
  }

  /**
   * What is refused for itself counts as a failure: a wrong password, and also the right one of a
   * disabled account, or the answer after the last free failure would tell that it is right. A full
   * queue does not count.
   */
  async #verify(
    { username, password, client, signal }: Attempt,
    account: Account | undefined,
    guess: Guess,
  ): Promise<boolean> {
    let outcome: GuessOutcome = 'unknown';
    try {
      const options = { signal, owner: client.ipKey };
      const isRight = await this.#options.passwords.verify(password, account?.password, options);
      outcome = isRight && account?.disabledAt === undefined ? 'right' : 'wrong';
      return isRight;
    } finally {
      const isShut = guess.done(outcome);
      const fields = { client, failures: guess.failures + 1, ...this.#whoIs(username, account) };
      if (isShut) this.#options.audit.record('authn_login_fail_max', fields);
    }
  }

  #refuse({ username, client }: Attempt, account: Account | undefined, isRight: boolean): Failure {
    const known = isRight ? 'disabled or changed' : 'wrong password';
    const reason = account === undefined ? 'unknown user' : known;
    const fields = { client, reason, ...this.#whoIs(username, account) };
    this.#options.audit.record('authn_login_fail', fields);
    return new Failure('bad_credentials', 'Username or password is incorrect');
  }

  /** Stores the password anew when its cost or pepper is of old. In the background; never rejects. */
  async #renewDigest(account: Account, password: string): Promise<void> {
    const { passwords, users, log } = this.#options;
    if (!passwords.needsRehash(account.password)) return;
    try {
      await users.replaceDigest(account.id, account.password, await passwords.hash(password));
    } catch (cause) {
      log.warn({ userId: account.id, cause }, 'password hash not renewed');
    }
  }

  #whoIs(username: string, account: Account | undefined) {
    if (account !== undefined) return { userId: account.id };
    return { unknownUser: this.#options.audit.pseudonym(username) };
  }
}
