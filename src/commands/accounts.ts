import { randomBytes } from 'node:crypto';
import type { Accounts } from '../auth/accounts.js';
import { openAuth } from '../auth/open.js';
import type { Users } from '../auth/users.js';
import type { Clock } from '../clock.js';
import type { Config } from '../config/config.js';
import type { Database } from '../db/database.js';
import { controlEntryAppender, headSeqSql } from '../event-log/open.js';
import { mergeRights, type TopicRights } from '../events/topic-rights.js';
import { ApiKeys } from '../identity/api-keys.js';
import { openLogger } from '../logging/logger.js';
import { replaceRightsOfAccount } from '../stream/topics/token-rights.js';
import { withDatabase } from './database.js';

export interface AccountParts {
  readonly accounts: Accounts;
  readonly users: Users;
  readonly apiKeys: ApiKeys;
  /** Replaces the rights of an account and of its stream tokens. Throws `not_found`. */
  readonly setRights: (username: string, rights: TopicRights) => Promise<void>;
}

/**
 * Runs `work` with the services for accounts, which are opened before and closed after it. Logs only to
 * files, because standard output belongs to the command.
 *
 * Sessions that `work` ends are appended to the event log, where a running server finds them and closes
 * their streams. The services use the time of the database (see `DatabaseClock`).
 */
export async function withAccounts<Result>(
  { accessToken, authThreads, ...rest }: Config,
  work: (parts: AccountParts) => Promise<Result>,
  localClock: Clock = Date.now,
): Promise<Result> {
  const config = {
    ...rest,
    // Commands issue no tokens, so a random secret is sufficient if none is set.
    accessToken: { ...accessToken, secret: accessToken.secret ?? randomBytes(64) },
    authThreads: { ...authThreads, count: 1 },
  };
  const log = await openLogger({ ...config.log, stdout: false });
  try {
    const workOn = async (db: Database, wallClock: Clock): Promise<Result> => {
      const appendControlEntries = controlEntryAppender(db, wallClock);
      const parts = { db, log, wallClock, appendControlEntries, headSeqSql };
      const monotonicClock = () => performance.now();
      const auth = await openAuth({ ...parts, config, monotonicClock, onEnded: async () => {} });
      try {
        const setRights: AccountParts['setRights'] = (username, rights) =>
          auth.accounts.setRights(username, rights, (userId, changeAccount) => {
            const ofTokens = mergeRights(rights, config.publicRights);
            return replaceRightsOfAccount(parts, { userId, rights: ofTokens, changeAccount });
          });
        return await work({ ...auth, apiKeys: new ApiKeys(parts), setRights });
      } finally {
        await auth.close();
      }
    };
    return await withDatabase(config, log, workOn, localClock);
  } finally {
    await log.close();
  }
}
