import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import type { TestContext } from 'node:test';
import { testOnDialects } from '../../test/support/databases/dialects.js';
import { databaseFor } from '../../test/support/databases/embedded.js';
import { withStatementLog } from '../../test/support/recording/noted-database.js';
import { sql, tuples } from '../db/database.js';
import { Failure } from '../errors.js';
import { StreamTokens } from './stream-token.js';

const test = await testOnDialects('stream tokens');

const lifeMs = 300_000;
const resumeWindowMs = 43_200_000;
const hashToken = (token: string) => createHash('sha256').update(token).digest('hex');

async function openTokens(t: TestContext, mode: 'resume' | 'single' = 'resume') {
  const statements: string[] = [];
  const db = withStatementLog(await databaseFor(t), statements);
  const time = { now: 1_800_000_000_000 };
  const tokens = new StreamTokens({ db, wallClock: () => time.now, lifeMs, resumeWindowMs, mode });
  for (const name of ['ada', 'bob']) {
    await db.execute(
      sql`insert into users (username, username_key, password_hash, first_name, last_name,
          password_changed_at, created_at, updated_at)
        values (${name}, ${name}, 'none', 'A', 'B', 0, 0, 0)`,
    );
  }
  const [ada] = await db.query<{ id: number }>(sql`select id from users order by id`);
  const userId = String(ada?.id);
  const mint = (sessionId = 's'.repeat(32)) => tokens.mint({ userId, sessionId });
  const rows = async () => (await db.query(sql`select token_hash from stream_tokens`)).length;
  return { db, time, tokens, userId, mint, rows, statements };
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
  const { db, tokens, mint, rows, statements } = await openTokens(t);
  statements.length = 0;

  const texts = await Promise.all(Array.from({ length: 5 }, () => mint()));

  assert.equal(statements.length, db.dialect === 'sqlite' ? 3 : 1); // On SQLite two inserts of one row start before the batch.
  assert.equal(await rows(), 5);
  const found = await Promise.all(texts.map((text) => tokens.find(text)));
  assert.deepEqual(
    found.map(({ hash }) => hash),
    texts.map(hashToken),
  );
});

test('a token for a deleted user is refused, and the other requests of the batch succeed', async (t) => {
  const { tokens, mint, rows } = await openTokens(t);
  const unknownToken = () => tokens.mint({ userId: '999999', sessionId: 's'.repeat(32) });

  const results = await Promise.allSettled([mint(), unknownToken(), mint()]);

  const statuses = results.map(({ status }) => status);
  assert.deepEqual(statuses, ['fulfilled', 'rejected', 'fulfilled']);
  assert.equal(await rows(), 2);
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

test('an invalidated token cannot be opened, and is listed as taken over so that its stream ends', async (t) => {
  const { tokens, mint, time } = await openTokens(t);
  const token = await mint();
  const found = await tokens.find(token);
  await tokens.open(found, 'one', 'e-1');

  await tokens.invalidate(found.hash);

  await assert.rejects(tokens.find(token), isFailure('invalid_token'));
  await assert.rejects(tokens.open(found, 'two', 'e-1'), isFailure('invalid_token'));
  assert.deepEqual(await tokens.takenSince(time.now), [found.hash]);
  assert.equal(await tokens.isHolder(found.hash, 'one'), false);
});

test('a new token can be opened until the last millisecond of its lifetime', async (t) => {
  const { userId, time, tokens, mint } = await openTokens(t);
  const token = await mint();

  time.now += lifeMs - 1;
  assert.equal((await tokens.find(token)).userId, userId);
  time.now += 1;
  await assert.rejects(tokens.find(token), isFailure('expired_token'));
});

test('an opened token can be opened again until twelve hours after its last stream ended', async (t) => {
  const { time, tokens, mint } = await openTokens(t);
  const token = await mint();
  const { hash } = await tokens.find(token);
  await tokens.open({ hash, isInUse: false }, 'c1', 'e-5');
  time.now += 20 * 3_600_000;
  await tokens.renew([hash]);
  await tokens.release(hash, 'c1');

  time.now += resumeWindowMs - 1;
  await tokens.open(await tokens.find(token), 'c2', 'e-9');
  await tokens.release(hash, 'c2');
  time.now += resumeWindowMs;

  await assert.rejects(tokens.find(token), isFailure('expired_token'));
});

test('a token stores the position at which its first stream started', async (t) => {
  const { tokens, mint } = await openTokens(t);
  const token = await mint();
  assert.equal((await tokens.find(token)).startPosition, undefined);

  await tokens.open(await tokens.find(token), 'c1', 'e-5');
  await tokens.open(await tokens.find(token), 'c2', 'e-9');

  assert.equal((await tokens.find(token)).startPosition, 'e-5');
});

test('releasing a replaced stream does not shorten the lease of its successor', async (t) => {
  const { db, time, tokens, mint } = await openTokens(t);
  const token = await mint();
  const hash = hashToken(token);
  await tokens.open(await tokens.find(token), 'old', 'e-0');
  await tokens.open(await tokens.find(token), 'new', 'e-0');
  time.now -= 1000;

  await tokens.release(hash, 'old');

  const [row] = await db.query(
    sql`select connection_id, takeovers, lease_until from stream_tokens`,
  );
  assert.deepEqual(
    { ...row },
    { connection_id: 'new', takeovers: 1, lease_until: time.now + 1000 + resumeWindowMs },
  );
});

test('in mode single a token can be opened once', async (t) => {
  const { tokens, mint } = await openTokens(t, 'single');
  const token = await mint();
  const found = await tokens.find(token);

  await tokens.open(found, 'c1', 'e-0');

  await assert.rejects(tokens.find(token), isFailure('invalid_token'));
  await assert.rejects(tokens.open(found, 'c2', 'e-0'), isFailure('invalid_token'));
});

test('of two concurrent opens in mode single, exactly one succeeds', async (t) => {
  const { tokens, mint } = await openTokens(t, 'single');
  const token = await tokens.find(await mint());

  const both = await Promise.allSettled([
    tokens.open(token, 'c1', 'e-0'),
    tokens.open(token, 'c2', 'e-0'),
  ]);

  assert.deepEqual(both.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
});

test('a takeover is listed from its time on, for ten minutes', async (t) => {
  const { time, tokens, mint } = await openTokens(t);
  const token = await mint();
  const hash = hashToken(token);
  await tokens.open(await tokens.find(token), 'old', 'e-0');
  assert.deepEqual(await tokens.takenSince(0), []);
  await tokens.open(await tokens.find(token), 'new', 'e-0');

  assert.deepEqual(await tokens.takenSince(time.now), [hash]);
  assert.deepEqual(await tokens.takenSince(time.now + 1), []);
  assert.equal(await tokens.isHolder(hash, 'new'), true);
  assert.equal(await tokens.isHolder(hash, 'old'), false);
  time.now += 600_001;
  await tokens.sweep();
  assert.deepEqual(await tokens.takenSince(0), []);
});

test('of two concurrent opens of a token, the older one is listed as taken over', async (t) => {
  const { time, tokens, mint, statements } = await openTokens(t);
  const found = await tokens.find(await mint()); // Both opens find it unused.
  statements.length = 0;

  await tokens.open(found, 'old', 'e-0');
  const statementsForUnusedToken = statements.length;
  await tokens.open(found, 'new', 'e-0');

  assert.equal(statementsForUnusedToken, 1);
  assert.deepEqual(await tokens.takenSince(time.now), [found.hash]);
  assert.equal(await tokens.isHolder(found.hash, 'new'), true);
});

test('all takeovers with the same timestamp are listed, across pages', async (t) => {
  const { db, time, tokens } = await openTokens(t);
  const takeovers = Array.from({ length: 2100 }, (_, index) => {
    const id = index.toString(16).padStart(32, '0');
    return [id, hashToken(id), time.now];
  });
  for (let start = 0; start < takeovers.length; start += 700) {
    const part = tuples(takeovers.slice(start, start + 700));
    await db.execute(
      sql`insert into stream_takeovers (connection_id, token_hash, taken_at) values ${part}`,
    );
  }

  const taken = await tokens.takenSince(time.now);

  assert.deepEqual(
    taken,
    takeovers.map(([, hash]) => hash),
  );
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
  const { userId, tokens, mint, rows } = await openTokens(t);
  const [mine, other] = [await mint('a'.repeat(32)), await mint('b'.repeat(32))];

  await tokens.revoke(['a'.repeat(32)]);

  await assert.rejects(tokens.find(mine), isFailure('invalid_token'));
  assert.equal((await tokens.find(other)).userId, userId);
  assert.equal(await rows(), 1);
});

test('a user keeps the ten newest tokens that were never opened', async (t) => {
  const { userId, time, tokens, mint, rows } = await openTokens(t);
  const opened = await mint();
  await tokens.open(await tokens.find(opened), 'c', 'e-0');
  const minted: string[] = [];
  for (let count = 0; count < 11; count += 1) {
    time.now += 1;
    minted.push(await mint());
  }

  assert.equal(await rows(), 11);
  await assert.rejects(tokens.find(minted[0] ?? ''), isFailure('invalid_token'));
  assert.equal((await tokens.find(minted[1] ?? '')).userId, userId);
  assert.equal((await tokens.find(opened)).userId, userId);
});

test('a process deletes surplus tokens of other processes too, once it has issued more than ten itself', async (t) => {
  const { db, time, userId, mint, rows } = await openTokens(t);
  for (let count = 0; count < 10; count += 1) await mint();
  const otherOptions = {
    db,
    wallClock: () => time.now,
    lifeMs,
    resumeWindowMs,
    mode: 'resume',
  } as const;
  const other = new StreamTokens(otherOptions);
  const sessionId = 's'.repeat(32);

  for (let count = 0; count < 10; count += 1) await other.mint({ userId, sessionId });
  assert.equal(await rows(), 20);
  await other.mint({ userId, sessionId });

  assert.equal(await rows(), 10);
});

test('after the last token of a user has expired, the count of issued tokens restarts', async (t) => {
  const { time, mint, rows } = await openTokens(t);

  for (let count = 0; count < 12; count += 1) {
    await mint();
    time.now += lifeMs;
  }

  assert.equal(await rows(), 12); // All but the last have expired; the next sweep deletes them.
});

test('expired tokens are deleted by the sweep', async (t) => {
  const { time, tokens, mint, rows } = await openTokens(t);
  const [unopened, opened] = [await mint(), await mint()];
  await tokens.open(await tokens.find(opened), 'c', 'e-0');
  await tokens.release(hashToken(opened), 'c');

  time.now += lifeMs;
  await tokens.sweep();
  assert.equal(await rows(), 1);
  await assert.rejects(tokens.find(unopened));
  time.now += resumeWindowMs;
  await tokens.sweep();
  assert.equal(await rows(), 0);
});
