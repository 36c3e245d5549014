import { randomBytes } from 'node:crypto';
import type { Accounts } from '../auth/accounts.js';
import { openAuth } from '../auth/open.js';
import type { Users } from '../auth/users.js';
import type { Config } from '../config/config.js';
import { controlEntryAppender } from '../event-log/open.js';
import { ApiKeys } from '../identity/api-keys.js';
import { openLogger } from '../logging/logger.js';
import { withDatabase } from './database.js';

export interface AccountParts {
  readonly accounts: Accounts;
  readonly users: Users;
  readonly apiKeys: ApiKeys;
}

/**
 * Runs `work` with the services for accounts. Opens the services before and closes them after. Logs
 * only to files, because standard output belongs to the command.
 *
 * Sessions that `work` ends are appended to the event log, where a running server finds them and closes
 * their streams.
 */
export async function withAccounts<Result>(
  { accessToken, authThreads, ...rest }: Config,
  work: (parts: AccountParts) => Promise<Result>,
): Promise<Result> {
  const config = {
    ...rest,
    // Commands issue no tokens, so a random secret will do if none is set.
    accessToken: { ...accessToken, secret: accessToken.secret ?? randomBytes(64) },
    authThreads: { ...authThreads, count: 1 },
  };
  const log = await openLogger({ ...config.log, stdout: false });
  try {
    return await withDatabase(config, log, async (db) => {
      const clocks = { wallClock: Date.now, monotonicClock: () => performance.now() };
      const appendControlEntries = controlEntryAppender(db, Date.now);
      const parts = { db, config, log, ...clocks, appendControlEntries };
      const auth = await openAuth({ ...parts, onEnded: async () => {} });
      try {
        return await work({ ...auth, apiKeys: new ApiKeys({ db, log, appendControlEntries }) });
      } finally {
        await auth.close();
      }
    });
  } finally {
    await log.close();
  }
}
