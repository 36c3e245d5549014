import type { TestContext } from 'node:test';
import type { SignAccessToken } from '../../../src/auth/access-token-signer.js';
import { RefreshTokens } from '../../../src/auth/refresh-token.js';
import { type EndedSessions, Sessions } from '../../../src/auth/sessions/sessions.js';
import { type Account, Users } from '../../../src/auth/users.js';
import type { Database } from '../../../src/db/database.js';
import { controlEntryAppender, headSeqSql } from '../../../src/event-log/open.js';
import type { Client } from '../../../src/http/client.js';
import { Audit } from '../../../src/logging/audit.js';
import { databaseFor } from '../databases/test-database.js';
import { collectingLog } from '../recording/collecting-log.js';
import { recordSecret } from '../recording/record.js';

/** A time that changes only when a test sets it. */
export interface ManualClock {
  now: number;
}

export const secret = Buffer.alloc(32, 'a secret of tests');
export const idleMs = 1_000_000;
export const absoluteMs = 2_500_000;
export const graceMs = 10_000;

export const client: Client = { requestId: 'request-1', ipKey: '192.0.2.1', userAgent: 'test/1' };

/** Returns readable text with the user and session instead of a signed token. */
export const sign: SignAccessToken = async ({ id, user }) => `access ${user.id} ${id}`;

interface Overrides {
  readonly db?: Database;
  readonly perUserMax?: number;
  readonly graceMs?: number;
  readonly secrets?: readonly Buffer[];
}

/** Creates `Users` and `Sessions` on a new database; collects their log lines and the ended sessions. */
export async function sessionsFor(t: TestContext, overrides: Overrides = {}) {
  const db = overrides.db ?? (await databaseFor(t));
  const time: ManualClock = { now: 1_700_000_000_000 };
  const wallClock = () => time.now;
  const lines: Record<string, unknown>[] = [];
  const endedSessions: EndedSessions[] = [];
  const users = new Users({ db, wallClock });
  const audit = new Audit({ log: collectingLog(lines) });
  const open = ({
    graceMs: grace = graceMs,
    secrets = [secret],
    perUserMax = 50,
  }: Overrides = {}) =>
    new Sessions({
      db,
      users,
      refreshTokens: new RefreshTokens({ secrets }),
      audit,
      appendControlEntries: controlEntryAppender(db, wallClock),
      onEnded: async (sessions) => {
        endedSessions.push(sessions);
      },
      idleMs,
      headSeqSql,
      absoluteMs,
      graceMs: grace,
      perUserMax,
      wallClock,
    });
  return {
    db,
    time,
    wallClock,
    lines,
    endedSessions,
    users,
    audit,
    sessions: open(overrides),
    reopen: open,
  };
}

let lastUser = 0;

export async function newUser(users: Users): Promise<Account> {
  lastUser += 1;
  return users.create({
    username: `User ${lastUser}`,
    firstName: 'Ada',
    lastName: 'Lovelace',
    password: { hash: 'none', pepperVersion: 0 },
  });
}

/** Opens a session and records its refresh token. Throws when the account has changed. */
export async function openSession(
  sessions: Sessions,
  account: Account,
  from = client,
  signing: SignAccessToken = sign,
) {
  const grant = await sessions.open(account, from, signing);
  if (grant === undefined) throw new Error('the account has changed');
  recordSecret(grant.refreshToken);
  return grant;
}
