import assert from 'node:assert/strict';
import { testOnDialects } from '../../../test/support/databases/dialects.js';
import { databaseFor } from '../../../test/support/databases/test-database.js';
import {
  countLockedRounds,
  withRoundLog,
} from '../../../test/support/recording/statement-hooks.js';
import { sql } from '../../db/database.js';
import { controlEntryAppender, headSeqSql, trimmedSeqSql } from '../../event-log/open.js';
import { SqlLogStore } from '../../event-log/sql/sql-log-store.js';
import { parseControlEntry } from '../../events/control-entry.js';
import { Memberships } from './memberships.js';
import { Revocations } from './revocations.js';
import { TopicLookup } from './topic-lookup.js';

const test = await testOnDialects('revocations');

const dayMs = 86_400_000;

async function openTopics(t: Parameters<typeof databaseFor>[0]) {
  const db = await databaseFor(t);
  const time = { now: 1_800_000_000_000 };
  const wallClock = () => time.now;
  await SqlLogStore.open(db, { wallClock, newEpoch: 'e' });
  const appendControlEntries = controlEntryAppender(db, wallClock);
  const memberships = new Memberships({ db, appendControlEntries, headSeqSql });
  const revocations = new Revocations({ db, wallClock, appendControlEntries });
  const lookup = new TopicLookup(db, trimmedSeqSql);
  const join = (topic: string, userId: string) =>
    memberships.change({ topic, add: [{ userId, rights: [] }], remove: [] });
  /** Inserts a token of a user without an account, with chosen topics. */
  const insertToken = async (hash: string, userId: string, mintedSeq: number, topics: string[]) => {
    await db.execute(
      sql`insert into stream_tokens (token_hash, public_id, subject, session_id, created_at, expires_at,
          ends_at, minted_seq, rights_seq)
        values (${hash}, ${hash}, ${userId}, 's', 0, 0, 0, ${mintedSeq}, ${mintedSeq})`,
    );
    for (const topic of topics)
      await db.execute(
        sql`insert into token_topics (token_hash, topic, since) values (${hash}, ${topic}, ${mintedSeq})`,
      );
  };
  /** Returns the topics of a user and a token with their numbers, and the loss. */
  const read = async (userId: string, tokenHash?: string) => {
    const { rows, lossSeq } = await lookup.read({ userId, tokenHash });
    const toObject = (found: readonly { topic: string; since: number }[]) =>
      Object.fromEntries(found.map(({ topic, since }) => [topic, since]));
    return [toObject(rows.memberships), toObject(rows.choices), lossSeq];
  };
  return { db, time, memberships, revocations, lookup, join, insertToken, read };
}

test('what was stored for a stream is read in one batch for many streams', async (t) => {
  const { db, join, memberships, insertToken, lookup, read } = await openTopics(t);
  await join('a', '1');
  await join('b', '1');
  await join('a', '2');
  await memberships.change({ topic: 'c', add: [], remove: ['2'] });
  await insertToken('h1', '1', 0, ['x', 'a']);
  await insertToken('h2', '2', 0, []);

  assert.deepEqual(
    await Promise.all([read('1', 'h1'), read('1'), read('2', 'h2'), read('3', 'h3')]),
    [
      [{ a: 1, b: 2 }, { x: 0, a: 0 }, 0],
      [{ a: 1, b: 2 }, {}, 0],
      [{ a: 3 }, {}, 4],
      [{}, {}, 0],
    ],
  );
  await db.execute(sql`update log_head set trimmed_seq = 3 where id = 1`);
  assert.equal((await lookup.read({ userId: '1', tokenHash: undefined })).trimmedSeq, 3);
});

test('a revocation ends memberships and choices of all tokens of the user, and is a loss', async (t) => {
  const { db, join, insertToken, revocations, read } = await openTopics(t);
  for (const userId of ['1', '2']) await join('a', userId);
  await join('b', '1');
  await insertToken('h1', '1', 0, ['a', 'A']);
  await insertToken('h2', '1', 0, ['a']);
  await insertToken('h3', '2', 0, ['a']);

  assert.equal(await revocations.revoke({ topic: 'a', userIds: ['1', '9'] }), 4);

  assert.deepEqual(await read('1', 'h1'), [{ b: 3 }, { A: 0 }, 4]);
  assert.deepEqual(await read('1', 'h2'), [{ b: 3 }, {}, 4]);
  assert.deepEqual(await read('2', 'h3'), [{ a: 2 }, { a: 0 }, 0]);
  assert.deepEqual(await read('9'), [{}, {}, 4]);
  const rows = await db.query<{ token_hash: string }>(
    sql`select token_hash from token_topics where topic = 'a'`,
  );
  assert.deepEqual(
    rows.map((row) => row.token_hash),
    ['h3'],
  );
  const [entry] = await db.query<{ control: string }>(
    sql`select control from events where seq = 4`,
  );
  assert.deepEqual(parseControlEntry(entry?.control ?? ''), {
    kind: 'topic_revoked',
    members: { topic: 'a', userIds: ['1', '9'] },
  });
});

test('a topic that was given at minting does not count if it was revoked meanwhile', async (t) => {
  const { revocations, insertToken, read, join } = await openTopics(t);
  await revocations.revoke({ topic: 'a', userIds: ['1'] }); // 1
  await insertToken('before', '1', 0, ['a', 'b']); // Its right was read before the revocation.
  await insertToken('after', '1', 1, ['a']);

  assert.deepEqual(await read('1', 'before'), [{}, { b: 0 }, 1]);
  assert.deepEqual(await read('1', 'after'), [{}, { a: 1 }, 1]);
  await revocations.revoke({ topic: 'a', userIds: ['1', '2'] }); // 2, replaces the first.
  await join('a', '1'); // Memberships are not voided.

  assert.deepEqual(await read('1', 'after'), [{ a: 3 }, {}, 2]);
});

test('a thousand users are revoked with one entry per 200', async (t) => {
  const { revocations, read, db } = await openTopics(t);
  const userIds = Array.from({ length: 1000 }, (_, index) => `u${index}`);

  assert.equal(await revocations.revoke({ topic: 'a', userIds }), 5);

  assert.deepEqual(
    [await read('u0'), await read('u999')],
    [
      [{}, {}, 1],
      [{}, {}, 5],
    ],
  );
  const [row] = await db.query<{ seq: number }>(
    sql`select seq from topic_revocations where user_id = 'u999' and topic = 'a'`,
  );
  assert.equal(row?.seq, 5);
});

test('a revocation is deleted after 31 days, if no older token of the user is left', async (t) => {
  const { time, revocations, insertToken, db } = await openTopics(t);
  await insertToken('old', '1', 0, []);
  await revocations.revoke({ topic: 'a', userIds: ['1', '2'] }); // 1
  await insertToken('new', '2', 1, []);
  const countRows = async () => (await db.query(sql`select user_id from topic_revocations`)).length;

  time.now += 31 * dayMs;
  assert.equal(await revocations.sweep(), 0);
  time.now += 1;
  assert.equal(await revocations.sweep(), 1);
  assert.deepEqual([await revocations.sweep(), await countRows()], [0, 1]);
  await db.execute(sql`delete from stream_tokens where token_hash = 'old'`);

  assert.equal(await revocations.sweep(), 1);
  assert.equal(await countRows(), 0);
});

test('the statements of a revocation for which publishers wait are sent together', async (t) => {
  const { db } = await openTopics(t);
  const rounds: string[][] = [];
  const wallClock = () => 0;
  const revocations = new Revocations({
    ...{ db: withRoundLog(db, rounds), wallClock },
    appendControlEntries: controlEntryAppender(db, wallClock),
  });

  await revocations.revoke({
    topic: 'a',
    userIds: Array.from({ length: 1000 }, (_, index) => `u${index}`),
  });

  assert.equal(countLockedRounds(rounds), 3); // The numbers, the entries, and the rows.
});
