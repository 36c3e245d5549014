import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import type { TestContext } from 'node:test';
import { testOnDialects } from '../../../test/support/databases/dialects.js';
import { databaseFor } from '../../../test/support/databases/test-database.js';
import { withStatementLog } from '../../../test/support/recording/statement-hooks.js';
import { sql } from '../../db/database.js';
import { Failure } from '../../errors.js';
import { controlEntryAppender, headSeqSql } from '../../event-log/open.js';
import { SqlLogStore } from '../../event-log/sql/sql-log-store.js';
import { parseControlEntry } from '../../events/control-entry.js';
import { noRights } from '../../events/topic-rights.js';
import { Disconnects } from '../disconnects.js';
import { getPublicId, type StreamToken, StreamTokens } from './stream-token.js';
import { TokenHolders } from './token-holders.js';

const test = await testOnDialects('stream tokens');

const lifeMs = 300_000;
const resumeWindowMs = 43_200_000;
const hashToken = (token: string) => createHash('sha256').update(token).digest('hex');

async function openTokens(
  t: TestContext,
  {
    mode = 'resume',
    streamsPerUserMax = 10,
  }: { mode?: 'resume' | 'single'; streamsPerUserMax?: number } = {},
) {
  const statements: string[] = [];
  const db = withStatementLog(await databaseFor(t), statements);
  const time = { now: 1_800_000_000_000 };
  const wallClock = () => time.now;
  await SqlLogStore.open(db, { wallClock, newEpoch: 'e' });
  const appendControlEntries = controlEntryAppender(db, wallClock);
  /** Creates the tokens of another process on the same database. */
  const startProcess = () =>
    new StreamTokens({
      ...{ db, wallClock, appendControlEntries, lifeMs, mode, streamsPerUserMax },
    });
  const tokens = startProcess();
  const holders = new TokenHolders({ db, wallClock, appendControlEntries, resumeWindowMs });
  for (const name of ['ada', 'bob']) {
    await db.execute(
      sql`insert into users (username, username_key, password_hash, first_name, last_name,
          password_changed_at, created_at, updated_at)
        values (${name}, ${name}, 'none', 'A', 'B', 0, 0, 0)`,
    );
  }
  const [ada] = await db.query<{ id: number }>(sql`select id from users order by id`);
  const userId = String(ada?.id);
  const mint = (sessionId = 's'.repeat(32)) =>
    tokens.mint({ userId, sessionId, beginning: 'e-7', mintedSeq: 0 });
  const claim = (state: StreamToken, streamId: string) =>
    holders.claim({ tokenHash: state.hash, state, streamId });
  /** Returns the control entries in the event log. */
  const entries = async () => {
    const rows = await db.query<{ control: string }>(sql`select control from events order by seq`);
    return rows.map(({ control }) => parseControlEntry(control));
  };
  const countTokens = async () =>
    (await db.query(sql`select token_hash from stream_tokens`)).length;
  const basics = { db, time, tokens, holders, userId, mint, claim };
  return { ...basics, entries, countTokens, statements, startProcess };
}

const isFailure = (name: string) => (error: unknown) => {
  assert.ok(error instanceof Failure);
  assert.equal(error.name, name);
  return true;
};

test('a token is 128 hex digits and only its hash is stored', async (t) => {
  const { db, mint } = await openTokens(t);

  const token = await mint();

  assert.match(token, /^[0-9a-f]{128}$/);
  const [row] = await db.query<Record<string, unknown>>(sql`select * from stream_tokens`);
  assert.equal(row?.['token_hash'], hashToken(token));
  assert.ok(!JSON.stringify(row).includes(token));
});

test('tokens requested concurrently are inserted together, and all of them open', async (t) => {
  const { db, tokens, mint, countTokens, statements } = await openTokens(t);
  statements.length = 0;

  const texts = await Promise.all(Array.from({ length: 5 }, () => mint()));

  // On SQLite the first two inserts start at once, with one row each.
  assert.equal(statements.length, db.dialect === 'sqlite' ? 3 : 1);
  assert.equal(await countTokens(), 5);
  const found = await Promise.all(texts.map((text) => tokens.find(text)));
  assert.deepEqual(
    found.map(({ hash }) => hash),
    texts.map(hashToken),
  );
});

test('minting a token for a deleted user fails, and the other requests of the batch succeed', async (t) => {
  const { tokens, mint, countTokens } = await openTokens(t);
  const mintForUnknownUser = () =>
    tokens.mint({ userId: '999999', sessionId: 's'.repeat(32), beginning: 'e-7', mintedSeq: 0 });

  const results = await Promise.allSettled([mint(), mintForUnknownUser(), mint()]);

  const statuses = results.map(({ status }) => status);
  assert.deepEqual(statuses, ['fulfilled', 'rejected', 'fulfilled']);
  await assert.rejects(mintForUnknownUser(), isFailure('invalid_token'));
  assert.equal(await countTokens(), 2);
});

test('a malformed token is rejected without a query', async (t) => {
  const { tokens, mint, statements } = await openTokens(t);
  const token = await mint();
  statements.length = 0;

  for (const text of ['', token.slice(1), `${token}0`, token.toUpperCase(), `${token}\n`]) {
    await assert.rejects(tokens.find(text), isFailure('invalid_token'));
  }

  assert.deepEqual(statements, []);
});

test('a new token has the position of its minting, version 0 and no holder', async (t) => {
  const { tokens, mint } = await openTokens(t);

  const { beginning, version, holder } = await tokens.find(await mint());

  assert.deepEqual([beginning, version, holder], ['e-7', 0, undefined]);
});

test('a revoked token cannot be opened or claimed, and a control entry ends its streams', async (t) => {
  const { tokens, holders, mint, claim, entries } = await openTokens(t);
  const token = await mint();
  const found = await tokens.find(token);

  await tokens.revokeLeaked(found.hash);

  await assert.rejects(tokens.find(token), isFailure('invalid_token'));
  assert.equal(await claim(found, 'late'), false);
  assert.equal(await holders.readState(found.hash), undefined);
  assert.deepEqual(await entries(), [{ kind: 'token_revoked', tokenHash: found.hash }]);
});

test('a new token can be opened until the last millisecond of its lifetime', async (t) => {
  const { userId, time, tokens, mint } = await openTokens(t);
  const token = await mint();

  time.now += lifeMs - 1;
  assert.equal((await tokens.find(token)).userId, userId);
  time.now += 1;
  await assert.rejects(tokens.find(token), isFailure('expired_token'));
});

test('a claimed token can be opened again until twelve hours after its last stream ended', async (t) => {
  const { time, tokens, holders, mint, claim } = await openTokens(t);
  const token = await mint();
  const found = await tokens.find(token);
  const { hash: tokenHash } = found;
  await claim(found, 'c1');
  time.now += 20 * 3_600_000;
  await holders.renew([tokenHash]);
  await holders.release([{ tokenHash, streamId: 'c1' }]);

  time.now += resumeWindowMs - 1;
  await claim(await tokens.find(token), 'c2');
  await holders.release([{ tokenHash, streamId: 'c2' }]);
  time.now += resumeWindowMs;

  await assert.rejects(tokens.find(token), isFailure('expired_token'));
});

test('a claim of an unused token makes the stream its holder, in one statement and without a control entry', async (t) => {
  const { tokens, holders, mint, claim, entries, statements } = await openTokens(t);
  const found = await tokens.find(await mint());
  statements.length = 0;

  assert.equal(await claim(found, 'c1'), true);

  assert.equal(statements.length, 1);
  assert.deepEqual(await holders.readState(found.hash), { version: 1, holder: 'c1' });
  assert.deepEqual(await entries(), []);
});

test('concurrent reads of token states share queries', async (t) => {
  const { tokens, holders, mint, claim, statements } = await openTokens(t);
  const found = await tokens.find(await mint());
  await claim(found, 'c1');
  statements.length = 0;
  const hashes = [found.hash, ...Array.from({ length: 20 }, (_, index) => `${index}`)];

  const states = await Promise.all(hashes.map((hash) => holders.readState(hash)));

  assert.deepEqual([states[0], states[1]], [{ version: 1, holder: 'c1' }, undefined]);
  assert.ok(statements.length <= 3, `${statements.length} queries`); // SQLite starts two at once.
});

test('a claim that replaces a holder appends a control entry with the new version', async (t) => {
  const { tokens, holders, mint, claim, entries } = await openTokens(t);
  const token = await mint();
  const { hash: tokenHash } = await tokens.find(token);
  await claim(await tokens.find(token), 'c1');

  assert.equal(await claim(await tokens.find(token), 'c2'), true);

  assert.deepEqual(await holders.readState(tokenHash), { version: 2, holder: 'c2' });
  const takeovers = [{ tokenHash, version: 2, streamId: 'c2' }];
  assert.deepEqual(await entries(), [{ kind: 'tokens_taken', takeovers }]);
});

test('a claim fails when the token has changed since it was read', async (t) => {
  const { tokens, holders, mint, claim, entries } = await openTokens(t);
  const token = await mint();
  const unused = await tokens.find(token);
  await claim(unused, 'c1');
  const held = await tokens.find(token);
  await claim(held, 'c2');

  assert.equal(await claim(unused, 'late'), false);
  assert.equal(await claim(held, 'late'), false);

  assert.equal((await holders.readState(unused.hash))?.holder, 'c2');
  assert.equal((await entries()).length, 1);
});

test('of concurrent claims that read the same state of a token, exactly one succeeds', async (t) => {
  const { tokens, holders, mint, claim } = await openTokens(t);
  const found = await tokens.find(await mint());
  const streamIds = Array.from({ length: 9 }, (_, index) => `c${index}`);

  const areClaimed = await Promise.all(streamIds.map((streamId) => claim(found, streamId)));

  const { version, holder } = (await holders.readState(found.hash)) ?? {};
  assert.equal(version, 1);
  assert.deepEqual(
    areClaimed,
    streamIds.map((streamId) => streamId === holder),
  );
});

test('of claims of one token in one batch, only the claim that read the current state succeeds', async (t) => {
  const { tokens, holders, mint, claim } = await openTokens(t);
  const unused = await tokens.find(await mint());
  await claim(unused, 'c1');
  const held = { ...unused, version: 1, holder: 'c1' };

  const areClaimed = await Promise.all([
    claim(unused, 'late'),
    claim(held, 'c2'),
    claim(unused, 'later'),
  ]);

  assert.deepEqual(areClaimed, [false, true, false]);
  assert.deepEqual(await holders.readState(unused.hash), { version: 2, holder: 'c2' });
});

test('each claim of a batch succeeds or fails alone, and only claims that replace a holder append takeovers', async (t) => {
  const { tokens, mint, claim, entries } = await openTokens(t);
  const found = await Promise.all(Array.from({ length: 4 }, async () => tokens.find(await mint())));
  const [changed, replaced] = found as [StreamToken, StreamToken]; // Safe: there are four.
  await Promise.all([claim(changed, 'c0'), claim(replaced, 'c1')]);
  const held = { ...replaced, version: 1, holder: 'c1' };

  const areClaimed = await Promise.all(
    [changed, held, ...found.slice(2)].map((state, index) => claim(state, `new${index}`)),
  );

  assert.deepEqual(areClaimed, [false, true, true, true]);
  const takeovers = [{ tokenHash: replaced.hash, version: 2, streamId: 'new1' }];
  assert.deepEqual(await entries(), [{ kind: 'tokens_taken', takeovers }]);
});

test('a release changes nothing for a token that another stream has claimed since', async (t) => {
  const { db, time, tokens, holders, mint, claim } = await openTokens(t);
  const token = await mint();
  const { hash: tokenHash } = await tokens.find(token);
  await claim(await tokens.find(token), 'old');
  await claim(await tokens.find(token), 'new');
  time.now -= 1000;

  await holders.release([{ tokenHash, streamId: 'old' }]);

  const [row] = await db.query(sql`select connection_id, version, lease_until from stream_tokens`);
  assert.deepEqual(
    { ...row },
    { connection_id: 'new', version: 2, lease_until: time.now + 1000 + resumeWindowMs },
  );
});

test('in mode single, a token can be claimed only once', async (t) => {
  const { tokens, mint, claim } = await openTokens(t, { mode: 'single' });
  const token = await mint();
  const found = await tokens.find(token);

  assert.equal(await claim(found, 'c1'), true);

  await assert.rejects(tokens.find(token), isFailure('invalid_token'));
  assert.equal(await claim(found, 'c2'), false);
});

const malformedTokens = [
  '',
  '0',
  'g'.repeat(128),
  'A'.repeat(128),
  'a'.repeat(127),
  'a'.repeat(129),
  '../..',
];

for (const text of malformedTokens) {
  test(`${JSON.stringify(text.slice(0, 9))} (${text.length}) is refused as a malformed token`, async (t) => {
    const { tokens } = await openTokens(t);

    await assert.rejects(tokens.find(text), isFailure('invalid_token'));
  });
}

test('an unknown stream token is refused', async (t) => {
  const { tokens } = await openTokens(t);

  await assert.rejects(tokens.find('a'.repeat(128)), isFailure('invalid_token'));
});

test('ending a session deletes its stream tokens and no others', async (t) => {
  const { userId, tokens, mint, countTokens } = await openTokens(t);
  const [mine, other] = [await mint('a'.repeat(32)), await mint('b'.repeat(32))];

  await tokens.deleteBySessions(['a'.repeat(32)]);

  await assert.rejects(tokens.find(mine), isFailure('invalid_token'));
  assert.equal((await tokens.find(other)).userId, userId);
  assert.equal(await countTokens(), 1);
});

test('a user keeps as many unopened tokens as the user may have open streams', async (t) => {
  const { time, mint, countTokens } = await openTokens(t, { streamsPerUserMax: 25 });
  for (let count = 0; count < 26; count += 1) {
    time.now += 1;
    await mint();
  }

  assert.equal(await countTokens(), 25);
});

test('the token of a refused client can be opened for as long as it was told to wait and another 30 s, even if it expires', async (t) => {
  const { time, tokens, mint } = await openTokens(t);
  const [token, other] = [await mint(), await mint()];
  time.now += lifeMs - 1;

  tokens.keepAlive(hashToken(token), 180_000);
  time.now += 209_999;
  await tokens.sweep();

  assert.equal((await tokens.find(token)).hash, hashToken(token));
  await assert.rejects(tokens.find(other), isFailure('expired_token'));
  time.now += 1;
  await assert.rejects(tokens.find(token), isFailure('expired_token'));
});

test('the token of a refused client is kept alive in other processes, too', async (t) => {
  const { time, tokens, mint, claim, startProcess } = await openTokens(t);
  const [unopened, opened, other] = [await mint(), await mint(), await mint()];
  await claim(await tokens.find(opened), 'c');
  const otherProcess = startProcess();
  for (const [token, expiresInMs] of [
    [unopened, lifeMs],
    [opened, resumeWindowMs - lifeMs],
  ] as const) {
    time.now += expiresInMs - 1;
    tokens.keepAlive(hashToken(token), 180_000);
    await tokens.storeKeptAlive();

    time.now += 209_999;
    assert.equal((await otherProcess.find(token)).hash, hashToken(token));
    time.now += 1;
    await assert.rejects(otherProcess.find(token), isFailure('expired_token'));
    time.now -= 209_999;
  }
  await assert.rejects(otherProcess.find(other), isFailure('expired_token'));
});

test('a refusal neither revives an expired token nor shortens a lease', async (t) => {
  const { db, time, tokens, mint, claim } = await openTokens(t);
  const [expired, opened] = [await mint(), await mint()];
  await claim(await tokens.find(opened), 'c');
  const readExpiries = () =>
    db.query(
      sql`select token_hash, expires_at, lease_until from stream_tokens order by token_hash`,
    );
  const before = await readExpiries();
  time.now += lifeMs;

  for (const token of [expired, opened, 'f'.repeat(128)]) tokens.keepAlive(hashToken(token), 1000);
  await tokens.storeKeptAlive();

  await assert.rejects(tokens.find(expired), isFailure('expired_token'));
  assert.deepEqual(await readExpiries(), before);
});

test('a user keeps the ten newest unopened tokens, and opened tokens do not count', async (t) => {
  const { userId, time, tokens, mint, claim, countTokens } = await openTokens(t);
  const opened = await mint();
  await claim(await tokens.find(opened), 'c');
  const minted: string[] = [];
  for (let count = 0; count < 11; count += 1) {
    time.now += 1;
    minted.push(await mint());
  }

  assert.equal(await countTokens(), 11);
  await assert.rejects(tokens.find(minted[0] ?? ''), isFailure('invalid_token'));
  assert.equal((await tokens.find(minted[1] ?? '')).userId, userId);
  assert.equal((await tokens.find(opened)).userId, userId);
});

test('a process deletes surplus tokens of other processes too, once it has minted more than ten itself', async (t) => {
  const { userId, mint, countTokens, startProcess } = await openTokens(t);
  for (let count = 0; count < 10; count += 1) await mint();
  const other = startProcess();
  const sessionId = 's'.repeat(32);

  for (let count = 0; count < 10; count += 1)
    await other.mint({ userId, sessionId, beginning: 'e-0', mintedSeq: 0 });
  assert.equal(await countTokens(), 20);
  await other.mint({ userId, sessionId, beginning: 'e-0', mintedSeq: 0 });

  assert.equal(await countTokens(), 10);
});

test('after the last token of a user has expired, the count of minted tokens restarts', async (t) => {
  const { time, mint, countTokens } = await openTokens(t);

  for (let count = 0; count < 12; count += 1) {
    await mint();
    time.now += lifeMs;
  }

  assert.equal(await countTokens(), 12); // All but the last have expired; the next sweep deletes them.
});

test('the sweep deletes tokens that expired at least ten minutes ago', async (t) => {
  const { time, tokens, holders, mint, claim, countTokens } = await openTokens(t);
  const [unopened, opened] = [await mint(), await mint()];
  const found = await tokens.find(opened);
  await claim(found, 'c');
  await holders.release([{ tokenHash: found.hash, streamId: 'c' }]);

  time.now += lifeMs + 599_999;
  await tokens.sweep();
  assert.equal(await countTokens(), 2); // A stream that was opened in time may be about to claim its token.
  time.now += 1;
  await tokens.sweep();
  assert.equal(await countTokens(), 1);
  await assert.rejects(tokens.find(unopened));
  time.now += resumeWindowMs;
  await tokens.sweep();
  assert.equal(await countTokens(), 0);
});

const foreign = { userId: 'auth0|5f7c', sessionId: 'f'.repeat(32), beginning: 'e-7' };

test('a token of a user without an account can be opened until its end', async (t) => {
  const { tokens, time } = await openTokens(t);
  const endsAt = time.now + 600;
  const token = await tokens.mint({ ...foreign, mintedSeq: 3, endsAt });

  const { userId, sessionId, endsAt: foundEndsAt, mintedSeq } = await tokens.find(token);

  assert.deepEqual(
    { userId, sessionId, foundEndsAt, mintedSeq },
    { userId: 'auth0|5f7c', sessionId: foreign.sessionId, foundEndsAt: endsAt, mintedSeq: 3 },
  );
  time.now = endsAt - 1;
  await tokens.find(token);
  time.now = endsAt;
  await assert.rejects(tokens.find(token), isFailure('expired_token'));
});

test('a disconnect voids the tokens that were minted before it, of the user, session or stream', async (t) => {
  const { db, tokens, time, userId } = await openTokens(t);
  const appendControlEntries = controlEntryAppender(db, () => time.now);
  const disconnects = new Disconnects({
    ...{ db, appendControlEntries, headSeqSql, tokenKeptMs: 0, wallClock: () => time.now },
  });
  const endsAt = time.now + 600;
  const mintAt = (mintedSeq: number, sessionId = 'a'.repeat(32)) =>
    tokens.mint({ ...foreign, sessionId, mintedSeq, endsAt });
  const isVoid = async (token: string) => {
    const found = await tokens.find(token).catch(({ name }: Error) => name);
    return found === 'invalid_token';
  };
  const request = { userId: foreign.userId, renew: false, issuedBefore: 0 };
  const local = await tokens.mint({ userId, sessionId: 's', beginning: 'e-0', mintedSeq: 0 });

  const first = await mintAt(0);
  assert.equal(await disconnects.add({ ...request, sessionIds: ['b'.repeat(32)] }), 1);
  assert.equal(await isVoid(first), false);
  assert.equal(await isVoid(await mintAt(0, 'b'.repeat(32))), true);
  assert.equal(await disconnects.add({ ...request, streams: [getPublicId(hashToken(first))] }), 2);
  assert.equal(await isVoid(first), true);
  const second = await mintAt(0);
  assert.equal(await isVoid(second), false);
  assert.equal(await disconnects.add(request), 3);
  assert.equal(await isVoid(second), true);
  assert.equal(await isVoid(await mintAt(2)), true);
  assert.equal(await isVoid(await mintAt(3)), false);
  assert.equal(await isVoid(local), false);
  await disconnects.add({ ...request, userId });
  assert.equal(await isVoid(local), true);
});

test('a disconnect voids a token that version 0.1.0 minted', async (t) => {
  const { db, tokens, time, userId, mint } = await openTokens(t);
  const appendControlEntries = controlEntryAppender(db, () => time.now);
  const disconnects = new Disconnects({
    ...{ db, appendControlEntries, headSeqSql, tokenKeptMs: 0, wallClock: () => time.now },
  });
  const token = await mint();
  await db.execute(
    sql`update stream_tokens set subject = null, public_id = null, minted_seq = null`,
  );
  assert.equal((await tokens.find(token)).userId, userId);

  await disconnects.add({ userId, renew: false, issuedBefore: 0 });

  await assert.rejects(tokens.find(token), isFailure('invalid_token'));
});

test('an extension replaces the end of a token and appends a control entry', async (t) => {
  const { tokens, time, entries, mint } = await openTokens(t);
  const token = await tokens.mint({ ...foreign, mintedSeq: 0, endsAt: time.now + 100 });
  const tokenHash = hashToken(token);

  const grant = { endsAt: time.now + 500, mintedSeq: 4, rights: noRights };
  await tokens.extend(await tokens.find(token), grant);

  const { endsAt, mintedSeq } = await tokens.find(token);
  assert.deepEqual({ endsAt, mintedSeq }, { endsAt: time.now + 500, mintedSeq: 4 });
  const extension = { tokenHash, endsAt: time.now + 500 };
  assert.deepEqual(await entries(), [{ kind: 'token_extended', extension }]);
  const ids = { publicId: 'p', userId: foreign.userId, rights: null };
  const unknown = [hashToken('unknown'), hashToken(await mint())]; // The second is of a local account.
  for (const hash of unknown) {
    const extending = tokens.extend({ hash, ...ids }, { ...grant, endsAt: 1, mintedSeq: 0 });
    await assert.rejects(extending, isFailure('invalid_token'));
  }
});
