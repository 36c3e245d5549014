import { randomBytes } from 'node:crypto';
import { after, type TestContext } from 'node:test';
import { AccessTokens } from '../../../src/auth/access-token.js';
import { createSigner } from '../../../src/auth/access-token-signer.js';
import { Accounts } from '../../../src/auth/accounts.js';
import { createKeyRing } from '../../../src/auth/key-ring.js';
import { Login } from '../../../src/auth/login.js';
import { PasswordAttemptLimiter } from '../../../src/auth/password-attempt-limiter.js';
import { Passwords } from '../../../src/auth/passwords/passwords.js';
import { RateLimiter } from '../../../src/auth/rate-limiter.js';
import { openAuthThreads } from '../../../src/auth/threads.js';
import { controlEntryAppender, headSeqSql } from '../../../src/event-log/open.js';
import { toClient } from '../../../src/http/client.js';
import { ApiKeys } from '../../../src/identity/api-keys.js';
import { BearerAuth } from '../../../src/identity/bearer.js';
import { WarningAggregator } from '../../../src/logging/warning-aggregator.js';
import { databaseFor } from '../databases/test-database.js';
import { collectingLog } from '../recording/collecting-log.js';
import { recordedLog } from '../recording/record.js';
import { withStatementLog } from '../recording/statement-hooks.js';
import { sessionsFor } from './auth.js';

const ring = createKeyRing({
  algorithm: 'HS256',
  secret: randomBytes(32),
});
const cost = { memoryKib: 7168, passes: 1, lanes: 1 }; // The lowest cost that `Passwords` accepts.

/** Shared by the tests of a file, because threads start slowly. */
const openingThreads = openAuthThreads({
  count: 2,
  queuePerThreadMax: 64,
  queueWaitMaxMs: 60_000,
  ring,
  log: recordedLog,
});
after(async () => (await openingThreads).close());

/** Opens all components of authentication on a new database. */
export async function startAuth(t: TestContext) {
  const statements: string[] = [];
  const base = await sessionsFor(t, { db: withStatementLog(await databaseFor(t), statements) });
  const { db, wallClock, users, sessions, audit, lines } = base;
  const log = collectingLog(lines);
  const threads = await openingThreads;
  const expectedClaims = { audience: 'test', issuer: 'test' };
  const lifetimes = { lifeMs: 900_000, clockToleranceMs: 5000 };
  const accessTokens = new AccessTokens({
    ring,
    threads,
    ...expectedClaims,
    ...lifetimes,
    wallClock,
  });
  const hashing: string[] = [];
  const countingThreads: Pick<typeof threads, 'run'> = {
    run(name, input, options) {
      hashing.push(name);
      return threads.run(name, input, options);
    },
  };
  const passwords = await Passwords.open({ threads: countingThreads, cost, lengthMin: 8 });
  const costlier = await Passwords.open({ threads, cost: { ...cost, passes: 2 }, lengthMin: 8 });
  const apiKeys = new ApiKeys({
    db,
    log,
    wallClock,
    headSeqSql,
    appendControlEntries: controlEntryAppender(db, wallClock),
  });
  const realm = 'herald "test"';
  const rate = { count: 30, perMs: 60_000 };
  const rates = {
    login: rate,
    token: rate,
    streamToken: rate,
    streamOpen: rate,
    invalidToken: rate,
  };
  const rateLimiter = new RateLimiter({ rates, audit, monotonicClock: wallClock });
  const bearer = new BearerAuth({
    ...{ accessTokens, sessions, apiKeys, tokenType: 'Bearer', realm },
    admitUnverified: (exchange) => rateLimiter.admit('invalidToken', toClient(exchange)),
    ...{ audit, monotonicClock: wallClock },
    warnings: new WarningAggregator({ log, monotonicClock: wallClock }),
  });
  const passwordAttempts = new PasswordAttemptLimiter({
    failuresBeforeDelay: 5,
    delayMaxMs: 900_000,
    monotonicClock: wallClock,
  });
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
  const sign = createSigner(accessTokens);
  return {
    ...base,
    ...{
      accessTokens,
      passwords,
      apiKeys,
      bearer,
      rateLimiter,
      passwordAttempts,
      login,
      accounts,
      sign,
    },
    /** Names of the password jobs that were sent to threads so far. */
    hashing,
    /** Texts of the SQL statements that were run so far. */
    statements,
    /** Hashes a password at a higher cost, as earlier settings may have required. */
    oldDigest: (password: string) => costlier.hash(password),
  };
}
