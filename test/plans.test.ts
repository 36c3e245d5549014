import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { type Database, type Sql, sql } from '../src/db/database.js';
import { tables } from '../src/db/migrations/list.js';
import { EventLog } from '../src/event-log/event-log.js';
import { controlEntryAppender, headSeqSql, trimmedSeqSql } from '../src/event-log/open.js';
import { SqlLogStore } from '../src/event-log/sql/sql-log-store.js';
import { formatTopicRights, type TopicRights } from '../src/events/topic-rights.js';
import { ApiKeys, publisherKeys } from '../src/identity/api-keys.js';
import { silentLogger } from '../src/logging/logger.js';
import { ClusterSync } from '../src/stream/cluster-sync.js';
import { Disconnects } from '../src/stream/disconnects.js';
import { StreamTable } from '../src/stream/open-streams/stream-table.js';
import { ProcessTable } from '../src/stream/process-table.js';
import { Registry } from '../src/stream/registry.js';
import { StreamTokens } from '../src/stream/tokens/stream-token.js';
import { TokenHolders } from '../src/stream/tokens/token-holders.js';
import { Choices } from '../src/stream/topics/choices.js';
import { Memberships } from '../src/stream/topics/memberships.js';
import { Revocations } from '../src/stream/topics/revocations.js';
import { replaceGrant, replaceRightsOfAccount } from '../src/stream/topics/token-rights.js';
import { TopicLookup } from '../src/stream/topics/topic-lookup.js';
import { UserCount } from '../src/stream/user-count.js';
import { testOnDialects } from './support/databases/dialects.js';
import { fakeHex, fillTables } from './support/databases/many-rows.js';
import { analyze, findFullScans, normalizeText } from './support/databases/plans.js';
import { databaseFor } from './support/databases/test-database.js';
import { withStatementHook } from './support/recording/statement-hooks.js';
import { resolveStart } from './support/resolve-start.js';
import { client, newUser, openSession, sessionsFor, sign } from './support/servers/auth.js';
import { toReader } from './support/to-reader.js';
import { unlimitedRetention } from './support/unlimited-retention.js';

const test = await testOnDialects('plans of statements');

const now = 1_800_000_000_000;
const wallClock = () => now;

async function createFilledDatabase(t: TestContext): Promise<Database> {
  const db = await databaseFor(t);
  await fillTables(db, now);
  await analyze(db, tables);
  return db;
}

/** Runs the statements of logins, refreshes, bearer tokens, logouts and accounts. */
async function exerciseAuth(t: TestContext, db: Database): Promise<void> {
  const { sessions, users, time } = await sessionsFor(t, { db });
  time.now = now;
  const account = await newUser(users);
  await users.findByName(account.username);
  await users.find(account.id);
  const first = await openSession(sessions, account);
  const second = await openSession(sessions, account);
  const renewed = await sessions.rotate(first.refreshToken, client, sign);
  await sessions.rotate(first.refreshToken, client, sign); // A retry after a lost reply.
  await sessions.findLive(renewed.sessionId);
  await sessions.list(account.id);
  await sessions.hasSessionFrom(account.id, client.ipKey);
  await sessions.end(second.sessionId, 'logout');
  await users.replaceDigest(account.id, account.password, { hash: 'new', pepperVersion: 0 });
  await sessions.endAll(account.id, 'password', {
    first: (tx) => users.setPassword(account.id, { hash: 'two', pepperVersion: 0 }, tx),
  });
  await users.lock(account.id, db);
  await users.disable(account.id);
  await users.enable(account.id);
  await users.list({ afterId: account.id, limit: 10 });
  time.now += 60_000;
  await sessions.deleteEnded();
  await users.delete(account.id);
  const keys = new ApiKeys({
    db,
    log: silentLogger,
    wallClock,
    headSeqSql,
    appendControlEntries: controlEntryAppender(db, wallClock),
  });
  const { key } = await keys.create({ name: 'plans', scopes: ['publish'] });
  await keys.verify(key);
  await keys.change('plans', { userPrefix: 'shop:', expiresAt: null, rate: '100/1000' });
  await keys.revoke('plans');
}

/** Runs the statements of stream tokens and of the exchange between processes. */
async function exerciseStreams(db: Database): Promise<void> {
  const lives = { lifeMs: 60_000, mode: 'resume' as const, streamsPerUserMax: 10 };
  const appendControlEntries = controlEntryAppender(db, wallClock);
  const tokens = new StreamTokens({ db, wallClock, appendControlEntries, ...lives });
  const holders = new TokenHolders({
    ...{ db, wallClock, appendControlEntries, resumeWindowMs: 60_000 },
  });
  const [user] = await db.query<{ id: number }>(
    sql`select id from users where username_key = 'filler1'`,
  );
  const userId = String(user?.id);
  const sessionId = fakeHex('a session', 32);
  const mint = () => tokens.mint({ userId, sessionId, beginning: 'e1-1', mintedSeq: 0 });
  for (let count = 0; count < 11; count += 1) await mint();
  const token = await mint();
  for (const streamId of ['c1', 'c2']) {
    const state = await tokens.find(token);
    await holders.claim({ tokenHash: state.hash, state, streamId });
    await holders.claim({ tokenHash: state.hash, state, streamId: 'late' });
  }
  const { hash } = await tokens.find(token);
  await holders.readState(hash);
  tokens.keepAlive(hash, 1000);
  await tokens.storeKeptAlive();
  await holders.renew([hash, fakeHex('another', 64)]);
  await holders.release([{ tokenHash: hash, streamId: 'c2' }]);
  await tokens.revokeLeaked(hash);
  const registry = new Registry({
    limits: { streamsMax: 10, perUserMax: 10, perIpMax: 10 },
    monotonicClock: wallClock,
    random: Math.random,
  });
  const clusterSync = await ClusterSync.start({
    db,
    requestDb: db,
    registry,
    userCount: new UserCount(registry),
    streamsPerUserMax: 10,
    log: silentLogger,
    wallClock,
    monotonicClock: wallClock,
  });
  await clusterSync.heartbeat();
  await clusterSync.close();
  await exerciseOpenStreams(db);
  const disconnects = new Disconnects({
    ...{ db, wallClock, appendControlEntries, headSeqSql, tokenKeptMs: 0 },
  });
  const request = { userId, sessionIds: [sessionId], renew: false, issuedBefore: now };
  await disconnects.add(request);
  await disconnects.findState(userId, sessionId);
  await disconnects.sweep();
  await new Disconnects({
    ...{
      db,
      appendControlEntries,
      headSeqSql,
      tokenKeptMs: 0,
      wallClock: () => now - 1990 + 31 * 86_400_000,
    }, // Ten are old enough.
  }).sweep();
  await tokens.deleteBySessions([sessionId]);
  await tokens.sweep();
}

/** Runs the statements of memberships and revocations of topics, and of opening a stream that has some. */
async function exerciseTopics(db: Database): Promise<void> {
  const appendControlEntries = controlEntryAppender(db, wallClock);
  const memberships = new Memberships({ db, appendControlEntries, headSeqSql });
  const users = ['user 1', 'user 2', 'user 3'];
  const members = users.map((userId) => ({ userId, rights: ['history' as const] }));
  await memberships.change({ topic: 'topic 1', add: members, remove: ['user 4'] });
  await memberships.change({ topic: 'topic 1', add: [], remove: users });
  await memberships.listOfTopic('topic 1', { userPrefix: '', after: 'user 1', limit: 101 });
  await memberships.listOfTopic('topic 1', { userPrefix: 'user 1', after: '', limit: 101 });
  await memberships.listOfUser('user 1', 'topic 1');
  const tokenHash = fakeHex('token 1', 64);
  const lookup = new TopicLookup(db, trimmedSeqSql);
  await lookup.read({ userId: 'user 1', tokenHash });
  await lookup.read({ userId: 'user 1', tokenHash: undefined });
  const [token] = await db.query<{ subject: string }>(
    sql`select subject from stream_tokens where token_hash = ${tokenHash}`,
  );
  await exerciseChoices(db, { hash: tokenHash, userId: token?.subject ?? '' });
  const revocations = new Revocations({ db, wallClock, appendControlEntries });
  await revocations.revoke({ topic: 'topic 1', userIds: [token?.subject ?? '', ...users] });
  await revocations.sweep();
  await new Revocations({
    ...{ db, appendControlEntries, wallClock: () => now - 1990 + 31 * 86_400_000 },
  }).sweep(); // Ten are old enough.
}

/** Runs the statements of chosen topics, and of new rights, for a token that has chosen topics. */
async function exerciseChoices(
  db: Database,
  token: { readonly hash: string; readonly userId: string },
): Promise<void> {
  const appendControlEntries = controlEntryAppender(db, wallClock);
  const choices = new Choices({ db, appendControlEntries, headSeqSql });
  const rights: TopicRights = new Map([['*', ['listen']]]);
  await db.execute(
    sql`update stream_tokens set rights = ${formatTopicRights(rights)}, ends_at = ${now}
      where token_hash = ${token.hash}`,
  );
  await choices.read(token);
  await choices.change(token, { add: ['chosen'], remove: ['topic 1'] });
  await choices.change(token, { add: ['topic-1'], remove: [] });
  const parts = { db, appendControlEntries };
  const granted = { ...token, publicId: fakeHex('public', 32), rights: formatTopicRights(rights) };
  const grant = { endsAt: now, mintedSeq: 1, rights: new Map([['topic-1', ['listen' as const]]]) };
  assert.equal(await replaceGrant(parts, granted, grant), true);
  const account = { userId: '1', rights: new Map(), changeAccount: async () => true };
  await replaceRightsOfAccount({ ...parts, headSeqSql }, account);
}

/** Runs the statements of the list of open streams. */
async function exerciseOpenStreams(db: Database): Promise<void> {
  const table = new StreamTable(db);
  const processes = new ProcessTable(db);
  const [one, two] = [fakeHex('process 1', 16), fakeHex('process 2', 16)];
  const page = { user: undefined, userPrefix: '', after: '', limit: 101 };
  await table.list([one, two], page);
  await table.list([one, two], { ...page, user: 'user 1', after: fakeHex('stream', 32) });
  await table.list([one, two], { ...page, userPrefix: 'user 1' });
  assert.ok((await table.findRemoteAtLimit(2, [one, two])).length > 0);
  await table.findByProcess(one);
  const [id = ''] = await table.findByProcess(two).then((rows) => [...rows.keys()]);
  await table.storeBacklogs(new Map([[id, { eventsBehind: 1, unsentBytes: 1 }]]));
  await table.deleteBatchByProcesses([one]);
  await table.deleteByProcess(two);
  await processes.markDead(now);
  await processes.delete([one]);
}

/**
 * Counts the streams of every user, so it reads a whole index. `ClusterStreams` bounds the share of the time
 * that it may take.
 */
const countsAllStreams = /^select user_id from open_streams group by user_id having /;

/** Runs the statements of publishing, polling, replay, resuming and trimming. */
async function exerciseLog(db: Database): Promise<void> {
  const store = await SqlLogStore.open(db, { wallClock, newEpoch: 'e1', keys: publisherKeys });
  const limits = { ...unlimitedRetention, eventsMax: 19_990 };
  const log = await EventLog.open({ store, log: silentLogger, wallClock, limits });
  const event = { audiences: ['u:1', 'all', 't:1'], type: 'note', data: '1', expiresAt: undefined };
  const keyId = fakeHex('an API key', 16);
  await db.execute(
    sql`insert into api_keys (id, name, key_hash, scopes, created_at)
      values (${keyId}, 'publisher', 'none', 'publish', 0)`,
  );
  const idempotency = { key: 'key', bodyHash: fakeHex('body', 64) };
  await log.append({ events: [event, event], idempotency, publisher: { keyId } });
  await store.readPublishSnapshot({ keyId });
  await log.catchUp();
  const audiences = ['all', 'u:1', 's:1'];
  await store.readAll({ after: 19_990, upTo: 20_000 }, 1e6);
  await store.read(
    toReader(audiences),
    { after: 100, upTo: 20_000 },
    { eventsMax: 128, bytesMax: 65_536 },
  );
  await resolveStart(log, audiences, 'e1-1');
  for (const count of [1, 16, 17, 1100]) {
    const topics = Array.from({ length: count }, (_, index): [string, number] => [`${index}`, 0]);
    const reader = toReader(audiences, Object.fromEntries(topics));
    for (const after of [100, 19_900])
      await store.read(reader, { after, upTo: 20_000 }, { eventsMax: 128, bytesMax: 65_536 });
    // In a table of 20,000 topics, PostgreSQL would rather read all of it than look up 1100.
    if (count < 100) await store.findLastTrimmedSeq(reader, 100);
  }
  await log.trim();
  await store.sweepIdempotencyKeys(wallClock());
}

test('every lookup of the hot paths uses an index', async (t) => {
  const db = await createFilledDatabase(t);
  const statements = new Map<string, Sql>(); // The latest statement of each text.
  const watched = withStatementHook(db, (statement) =>
    statements.set(normalizeText(statement), statement),
  );

  await exerciseAuth(t, watched);
  await exerciseStreams(watched);
  await exerciseTopics(watched);
  await exerciseLog(watched);

  const lookups = [...statements].filter(([text]) => !text.startsWith('insert '));
  const found: string[] = [];
  for (const [text, statement] of lookups) {
    if (countsAllStreams.test(text)) continue;
    for (const scan of await findFullScans(db, statement)) found.push(`${scan}: ${text}`);
  }
  assert.deepEqual(found, []);
  assert.ok(lookups.length > 40, `${lookups.length} statements were seen`);
  const read = lookups.map(([text]) => text).join('\n');
  for (const table of tables) assert.match(read, new RegExp(`\\b${table}\\b`));
});

test('a lookup without an index is detected', async (t) => {
  const db = await createFilledDatabase(t);

  const lookups = [
    sql`select id from users where first_name = ${'nobody'}`,
    sql`select id from sessions where ip_key = ${'nowhere'} limit 1`,
    sql`update sessions set user_agent = null where ip_key = ${'nowhere'}`,
    sql`delete from events where type = ${'nothing'}`,
    sql`select s.id from sessions s join users u on u.id = s.user_id where s.ip_key = ${'x'}`,
  ];

  for (const lookup of lookups) {
    assert.notDeepEqual(await findFullScans(db, lookup), [], lookup.texts.join('?'));
  }
});
