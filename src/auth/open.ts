import type { Clock } from '../clock.js';
import type { Config } from '../config/config.js';
import type { Database } from '../db/database.js';
import type { Route } from '../http/router.js';
import { Audit } from '../logging/audit.js';
import type { Logger } from '../logging/logger.js';
import type { WarningAggregator } from '../logging/warning-aggregator.js';
import type { Pool } from '../workers/pool.js';
import { AccessTokens } from './access-token.js';
import { Accounts } from './accounts.js';
import type { AuthJobs } from './jobs.js';
import { createKeyRing, type KeyRing } from './key-ring.js';
import { Login } from './login.js';
import { PasswordAttemptLimiter } from './password-attempt-limiter.js';
import { Passwords } from './passwords/passwords.js';
import { RateLimiter } from './rate-limiter.js';
import { RefreshTokens } from './refresh-token.js';
import { type Authenticator, authRoutes } from './routes.js';
import { Sessions, type SessionsOptions } from './sessions/sessions.js';
import { openAuthThreads } from './threads.js';
import { Users } from './users.js';

export interface AuthOptions {
  readonly db: Database;
  readonly config: AuthConfig;
  readonly log: Logger;
  /** See `AuditOptions`. */
  readonly warnings?: WarningAggregator | undefined;
  readonly wallClock: Clock;
  /** For the limiters of rates and of wrong passwords. */
  readonly monotonicClock: Clock;
  /** See `SessionsOptions`. */
  readonly appendControlEntries: SessionsOptions['appendControlEntries'];
  /** See `SessionsOptions`. */
  readonly onEnded: SessionsOptions['onEnded'];
  /** See `SessionsOptions`. */
  readonly headSeqSql: SessionsOptions['headSeqSql'];
}

export type AuthConfig = Pick<
  Config,
  'accessToken' | 'session' | 'password' | 'rates' | 'passwordAttempts' | 'authThreads'
>;

/** The authentication feature. The caller closes it after the server and before the database. */
export interface Auth {
  /** Returns the routes of this feature; `bearer` authenticates those that need an access token. */
  routes(bearer: Authenticator): Route[];
  readonly accessTokens: AccessTokens;
  readonly sessions: Sessions;
  readonly users: Users;
  readonly accounts: Accounts;
  readonly rateLimiter: RateLimiter;
  readonly audit: Audit;
  readonly threads: Pool<AuthJobs>;
  /** Tasks for a timer. Each returns how many rows it deleted. */
  readonly cleanUpTasks: Readonly<Record<string, () => Promise<number>>>;
  close(): Promise<void>;
}

/**
 * Opens authentication on an open database. Rejects when a thread fails to load, or when a key, a
 * secret, or an option for passwords or access tokens is invalid.
 */
export async function openAuth(options: AuthOptions): Promise<Auth> {
  const { db, config, log, warnings, wallClock, monotonicClock } = options;
  const { appendControlEntries, onEnded, headSeqSql } = options;
  const { accessToken, session, password, passwordAttempts: limits } = config;
  const ring = buildKeyRing(config);
  const threads = await openAuthThreads({ ...config.authThreads, ring, log });
  try {
    const passwords = await Passwords.open({ threads, ...password });
    const audit = new Audit({ log, warnings });
    const users = new Users({ db, wallClock });
    const refreshTokens = new RefreshTokens({ secrets: listSecrets(config) });
    const sessions = new Sessions({
      db,
      users,
      refreshTokens,
      audit,
      appendControlEntries,
      onEnded,
      headSeqSql,
      wallClock,
      ...session,
    });
    const accessTokens = new AccessTokens({ ring, threads, wallClock, ...accessToken });
    const rateLimiter = new RateLimiter({ rates: config.rates, audit, monotonicClock });
    const passwordAttempts = new PasswordAttemptLimiter({ ...limits, monotonicClock });
    const { type: tokenType } = accessToken;
    const login = new Login({
      users,
      sessions,
      passwords,
      rateLimiter,
      passwordAttempts,
      audit,
      log,
    });
    const accounts = new Accounts({ users, sessions, passwords, audit });
    const { jwks } = ring;
    return {
      routes: (bearer) =>
        authRoutes({
          ...{ login, users, sessions, accessTokens, bearer, rateLimiter, audit, tokenType },
          jwks,
        }),
      ...{ accessTokens, sessions, users, accounts, rateLimiter, audit, threads },
      cleanUpTasks: { sessions: () => sessions.deleteEnded() },
      close: () => threads.close(),
    };
  } catch (cause) {
    await threads.close();
    throw cause;
  }
}

function buildKeyRing({ accessToken }: AuthConfig): KeyRing {
  const { algorithm, secret, previousSecrets, privateKeyPem, previousPublicKeysPem } = accessToken;
  if (!algorithm.startsWith('HS'))
    return createKeyRing({ algorithm, privateKeyPem, previousPublicKeysPem });
  return createKeyRing({ algorithm, secret, previousSecrets });
}

/** Lists the secrets for MACs of refresh tokens, needed with asymmetric access tokens too. */
function listSecrets({ accessToken: { secret, previousSecrets } }: AuthConfig): readonly Buffer[] {
  return [...(secret === undefined ? [] : [secret]), ...previousSecrets];
}
