import { spawnSync } from 'node:child_process';
import { createHmac, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { formatRefreshToken, hashVerifier, RefreshTokens } from '../../src/auth/refresh-token.js';
import { CliSqliteDatabase } from '../../src/commands/cli-sqlite-database.js';
import { type Database, sql, tuples, type Value } from '../../src/db/database.js';
import type { StreamRequest } from '../load/stream-load.js';
import { type Core, serverCore } from '../machine.js';
import type { Build } from './build.js';
import { Child } from './child.js';

export type Settings = Readonly<Record<string, string>>;

/** A user with a session, inserted directly into the database. */
export interface Member {
  readonly userId: number;
  readonly username: string;
  readonly sessionId: string;
  readonly accessToken: string;
  readonly refreshToken: string;
}

/** A database with members and a publish key, and the settings of its server. */
export interface PreparedDatabase {
  readonly settings: Settings;
  readonly members: readonly Member[];
  readonly publishKey: string;
}

const secret = randomBytes(64);

/** Creates production settings, with limits so high that no measurement reaches them. */
export function createSettings(folder: string, certificate: Settings): Settings {
  return {
    NODE_ENV: 'production',
    DATA_DIR: folder,
    LOG_PATH: join(folder, 'logs'),
    HOST: '127.0.0.1',
    PORT: '0',
    ACCESS_TOKEN_SECRET: `base64:${secret.toString('base64')}`,
    ACCESS_TOKEN_AUDIENCE: 'bench',
    ACCESS_TOKEN_ISSUER: 'bench',
    MAX_STREAMS_PER_CONNECTION: '1000',
    MAX_STREAMS: '50000',
    MAX_STREAMS_PER_USER: '50000',
    MAX_STREAMS_PER_IP: '50000',
    LOGIN_IP_RATE: '1000000/1000',
    TOKEN_IP_RATE: '1000000/1000',
    STREAM_TOKEN_USER_RATE: '1000000/1000',
    STREAM_OPEN_IP_RATE: '1000000/1000',
    ACCEPT_RATE: '1000000/1000',
    // All connections come from 127.0.0.1. With a trusted proxy, the limits on connections per address
    // do not apply, and each request can have its own address (`unusedAddressHeader`).
    TRUST_PROXY_HOPS: '1',
    ...certificate,
  };
}

/**
 * Creates an embedded database and inserts `memberCount` members, each with a session that is valid for
 * an hour. The measured build creates the database, so that its schema is that of the measured server.
 */
export async function prepareDatabase(
  build: Build,
  settings: Settings,
  { memberCount, passwordHash = 'none' }: { memberCount: number; passwordHash?: string },
): Promise<PreparedDatabase> {
  const createArgs = ['create', '--name', 'bench', '--scope', 'publish'];
  const publishKey = runCommand(build, ['key', ...createArgs], settings);
  const members = await withEmbeddedDatabase(settings, (db) =>
    insertMembers(db, { memberCount, passwordHash }),
  );
  return { settings, members, publishKey };
}

/**
 * Opens the embedded database in `DATA_DIR` for the duration of `work`. Does not check its schema,
 * because the measured build, perhaps an older one, created it.
 */
export async function withEmbeddedDatabase<Result>(
  settings: Settings,
  work: (db: Database) => Promise<Result>,
): Promise<Result> {
  const db = await CliSqliteDatabase.open(join(settings['DATA_DIR'] ?? '', 'herald.db'));
  try {
    return await work(db);
  } finally {
    await db.close();
  }
}

/** Runs a command of a build and returns its output. Throws an Error with its error output if it fails. */
export function runCommand(
  { name, folder }: Build,
  [command = '', ...args]: readonly string[],
  settings: Settings,
): string {
  const { PATH = '', HOME = '' } = process.env;
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [join(folder, `dist/commands/${command}.js`), ...args],
    // This folder contains no `.env` file that could change the settings.
    { cwd: settings['DATA_DIR'], env: { PATH, HOME, ...settings }, encoding: 'utf8' },
  );
  if (status !== 0) throw new Error(`Cannot run '${command}' of ${name}: ${stderr}`);
  return stdout.trim();
}

/** Inserts members. Throws if the database, which an older build may have created, lacks a column. */
export async function insertMembers(
  db: Database,
  { memberCount, passwordHash }: { memberCount: number; passwordHash: string },
): Promise<readonly Member[]> {
  const refreshTokens = new RefreshTokens({ secrets: [secret] });
  const now = Date.now();
  const members: Member[] = [];
  for (let start = 1; start <= memberCount; start += 500) {
    const users: Value[][] = [];
    const sessions: Value[][] = [];
    for (let userId = start; userId < Math.min(start + 500, memberCount + 1); userId += 1) {
      const username = `member-${userId}`;
      const refresh = refreshTokens.mint();
      const sessionId = randomBytes(16).toString('hex');
      users.push([userId, username, username, passwordHash, 'First', 'Last', now, now, now]);
      sessions.push([
        ...[sessionId, userId, refresh.selector, hashVerifier(refresh.verifier)],
        ...[now, now, now + 3_600_000, now + 7_200_000],
      ]);
      const accessToken = createAccessToken(userId, sessionId, now);
      const refreshToken = formatRefreshToken(refresh);
      members.push({ userId, username, sessionId, accessToken, refreshToken });
    }
    await db.execute(
      sql`insert into users (id, username, username_key, password_hash, first_name, last_name,
        password_changed_at, created_at, updated_at) values ${tuples(users)}`,
    );
    await db.execute(
      sql`insert into sessions (id, user_id, selector, cur_hash, created_at, refreshed_at,
        idle_expires_at, absolute_expires_at) values ${tuples(sessions)}`,
    );
  }
  return members;
}

/** Starts the server of a build, by default on `serverCore`. */
export function startHerald(
  { folder }: Build,
  settings: Settings,
  { core = serverCore }: { core?: Core } = {},
): Promise<Child> {
  return Child.start({
    args: [join(folder, 'dist/server.js')],
    env: settings,
    core,
    readyPattern: /"url":"https:\/\/[^"]*:(\d+)".*"listening"/,
  });
}

/** Returns one stream request per member, with an access token instead of a stream token. */
export function createStreamRequests(members: readonly Member[]): StreamRequest[] {
  return members.map(({ accessToken }) => ({
    path: '/stream/live',
    headers: { accept: 'text/event-stream', authorization: `Bearer ${accessToken}` },
  }));
}

/** Signs an access token that Herald accepts for an hour. It has no `kid`. Spec: RFC 7515 §3. */
function createAccessToken(userId: number, sessionId: string, now: number): string {
  const times = { iat: Math.floor(now / 1000), exp: Math.floor(now / 1000) + 3600 };
  const userClaims = { firstName: 'First', lastName: 'Last', sid: sessionId, sub: String(userId) };
  const claims = { ...userClaims, ...times, aud: 'bench', iss: 'bench' };
  const signedText = [{ alg: 'HS256', typ: 'JWT' }, claims]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .join('.');
  return `${signedText}.${createHmac('sha256', secret).update(signedText).digest('base64url')}`;
}
