import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { testOnDialects } from '../../../test/support/databases/dialects.js';
import { databaseFor } from '../../../test/support/databases/test-database.js';
import { sql } from '../../db/database.js';
import { controlEntryAppender, headSeqSql, trimmedSeqSql } from '../../event-log/open.js';
import { SqlLogStore } from '../../event-log/sql/sql-log-store.js';
import {
  type ControlEntry,
  membersChanged,
  parseControlEntry,
} from '../../events/control-entry.js';
import { noRights, type TopicRights } from '../../events/topic-rights.js';
import { StreamTokens } from '../tokens/stream-token.js';
import { Choices } from './choices.js';
import { Memberships } from './memberships.js';
import { Revocations } from './revocations.js';
import { replaceRightsOfAccount } from './token-rights.js';
import { TopicLookup } from './topic-lookup.js';

const test = await testOnDialects('chosen topics');

const now = 1_800_000_000_000;
const foreign = { userId: 'shop:42', sessionId: 'f'.repeat(32), endsAt: now + 1e6 };
const all: TopicRights = new Map([['*', ['listen']]]);

async function openChoices(t: TestContext) {
  const db = await databaseFor(t);
  const wallClock = () => now;
  await SqlLogStore.open(db, { wallClock, newEpoch: 'e' });
  const appendControlEntries = controlEntryAppender(db, wallClock);
  const tokens = new StreamTokens({
    ...{ db, wallClock, appendControlEntries, lifeMs: 300_000, mode: 'resume' },
    streamsPerUserMax: 10,
  });
  const choices = new Choices({ db, appendControlEntries, headSeqSql });
  await db.execute(
    sql`insert into users (username, username_key, password_hash, first_name, last_name,
        password_changed_at, created_at, updated_at)
      values ('ada', 'ada', 'none', 'A', 'B', 0, 0, 0)`,
  );
  const [ada] = await db.query<{ id: number }>(sql`select id from users`);
  const local = { userId: String(ada?.id), sessionId: 's'.repeat(32), endsAt: undefined };
  /** Mints a token with these rights and topics at a position, and returns it. */
  const mint = async (
    rights: TopicRights,
    topics: readonly string[] = [],
    { mintedSeq = 0, owner = foreign as typeof foreign | typeof local } = {},
  ) => {
    const token = await tokens.mint({ ...owner, beginning: 'e-0', mintedSeq, rights, topics });
    return { text: token, ...(await tokens.find(token)) };
  };
  const append = (...entries: readonly ControlEntry[]) =>
    db.transaction((tx) => appendControlEntries(tx, entries));
  /** Stores a revocation without deleting chosen topics, as one does that commits before they are inserted. */
  const revoke = async (topic: string, userId = foreign.userId) => {
    const seq = await append(...membersChanged('topic_revoked', { topic, userIds: [userId] }));
    await db.execute(
      sql`insert into topic_revocations (user_id, topic, seq, created_at)
        values (${userId}, ${topic}, ${seq}, ${now})`,
    );
    return seq;
  };
  /** Returns the control entries after a number. */
  const entries = async (afterSeq = 0) => {
    const rows = await db.query<{ control: string }>(
      sql`select control from events where seq > ${afterSeq} order by seq`,
    );
    return rows.map(({ control }) => parseControlEntry(control));
  };
  const loss = async (userId: string) => {
    const [row] = await db.query<{ seq: number }>(
      sql`select seq from topic_losses where user_id = ${userId}`,
    );
    return row?.seq;
  };
  const countRows = async () => (await db.query(sql`select topic from token_topics`)).length;
  const replaceRights = (rights: TopicRights) =>
    replaceRightsOfAccount(
      { db, appendControlEntries, headSeqSql },
      { userId: local.userId, rights, changeAccount: async () => true },
    );
  return {
    ...{ db, tokens, choices, local, mint, append, revoke, entries, loss, countRows },
    ...{ replaceRights, appendControlEntries },
  };
}

const topicsOf = ({ choices }: { choices: readonly { topic: string; since: number }[] }) =>
  choices.map(({ topic, since }) => `${topic} ${since}`);

function listTopics(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `${index}`.padStart(128, 'x'));
}

test('topics given at minting are chosen from the number of the minting, without an entry', async (t) => {
  const { choices, mint, append, entries } = await openChoices(t);
  const seq = await append({ kind: 'key_changed', keyId: 'k' });

  const token = await mint(all, ['b', 'A', 'a'], { mintedSeq: seq });

  const found = await choices.read(token);
  assert.deepEqual(topicsOf(found), [`A ${seq}`, `a ${seq}`, `b ${seq}`]);
  assert.deepEqual([found.memberships, found.headSeq], [0, seq]);
  assert.deepEqual(await entries(seq), []);
});

test('tokens with and without topics are minted together, and one that is refused does not affect the others', async (t) => {
  const { mint, countRows, choices } = await openChoices(t);
  const unknown = { owner: { userId: '999999', sessionId: 's', endsAt: undefined } };

  const results = await Promise.allSettled([
    mint(all, listTopics(100)),
    mint(all, ['a'], unknown),
    mint(noRights),
    mint(all, ['a', 'b']),
    ...Array.from({ length: 30 }, () => mint(all, listTopics(100))),
  ]);

  assert.deepEqual(
    results.slice(0, 4).map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled', 'fulfilled'],
  );
  assert.equal(
    results.slice(4).every(({ status }) => status === 'fulfilled'),
    true,
  );
  assert.equal(await countRows(), 31 * 100 + 2);
  const last = results[3];
  assert.ok(last?.status === 'fulfilled');
  assert.deepEqual(topicsOf(await choices.read(last.value)), ['a 0', 'b 0']);
});

test('a chosen topic begins at the number of its entry, and one that was chosen before keeps its number', async (t) => {
  const { choices, mint, entries } = await openChoices(t);
  const token = await mint(all, ['b']);

  const changed = await choices.change(token, { add: ['c', 'b', 'a'], remove: [] });

  const [entry, ...more] = await entries();
  assert.deepEqual(
    [entry, more],
    [{ kind: 'topics_chosen', choice: { tokenHash: token.hash, topics: ['c', 'a'] } }, []],
  );
  const { headSeq } = changed;
  assert.deepEqual(topicsOf(changed), [`a ${headSeq}`, 'b 0', `c ${headSeq}`]);
  assert.deepEqual(await choices.read(token), changed);
});

test('a change gives topics up before it chooses others, and leaves no loss', async (t) => {
  const { choices, mint, entries, loss } = await openChoices(t);
  const token = await mint(all, ['a', 'b', 'A']);

  const { choices: chosen, headSeq } = await choices.change(token, {
    add: ['c'],
    remove: ['a', 'x', 'b'],
  });

  const { hash: tokenHash } = token;
  assert.deepEqual(await entries(), [
    { kind: 'topics_given_up', choice: { tokenHash, topics: ['a', 'b'] } },
    { kind: 'topics_chosen', choice: { tokenHash, topics: ['c'] } },
  ]);
  assert.deepEqual(topicsOf({ choices: chosen }), ['A 0', `c ${headSeq}`]);
  assert.equal(await loss(foreign.userId), undefined);
});

test('a change that changes nothing appends no entry', async (t) => {
  const { choices, mint, entries } = await openChoices(t);
  const token = await mint(all, ['a']);

  const { choices: chosen } = await choices.change(token, { add: ['a'], remove: ['b'] });

  assert.deepEqual(topicsOf({ choices: chosen }), ['a 0']);
  assert.deepEqual(await entries(), []);
});

test('if the rights do not allow a topic, nothing is changed and the refused topics are named', async (t) => {
  const { choices, mint, entries } = await openChoices(t);
  const rights: TopicRights = new Map([
    ['orders:*', ['listen']],
    ['news', ['history']],
  ]);
  const token = await mint(rights, ['orders:1']);

  const changing = choices.change(token, {
    add: ['orders:2', 'news', 'Orders:2'],
    remove: ['orders:1'],
  });

  await assert.rejects(changing, {
    name: 'topic_not_allowed',
    info: { field: 'add', topics: ['news', 'Orders:2'] },
  });
  assert.deepEqual(topicsOf(await choices.read(token)), ['orders:1 0']);
  assert.deepEqual(await entries(), []);
});

test('a token has at most 100 chosen topics', async (t) => {
  const { choices, mint } = await openChoices(t);
  const [first = '', ...others] = listTopics(101);
  const token = await mint(all, others.slice(1));

  await choices.change(token, { add: [others[0] ?? ''], remove: [] });
  await assert.rejects(choices.change(token, { add: [first], remove: [] }), {
    name: 'invalid_request',
    info: { field: 'add' },
  });
  await choices.change(token, { add: [first], remove: [others[0] ?? ''] });

  const { choices: chosen } = await choices.read(token);
  assert.deepEqual(
    chosen.map(({ topic }) => topic),
    [first, ...others.slice(1)].sort(),
  );
});

test('a revocation voids the right on its topic in tokens that were minted before it, and in no others', async (t) => {
  const { choices, mint, revoke } = await openChoices(t);
  const before = await mint(all);
  const seq = await revoke('a');
  const after = await mint(all, [], { mintedSeq: seq });
  const refusal = { name: 'topic_not_allowed', info: { field: 'add', topics: ['a'] } };

  await assert.rejects(choices.change(before, { add: ['a', 'b'], remove: [] }), refusal);
  assert.deepEqual(topicsOf(await choices.read(before)), []);

  await choices.change(before, { add: ['A'], remove: [] });
  const { choices: chosen, headSeq } = await choices.change(after, { add: ['a'], remove: [] });
  assert.deepEqual(topicsOf({ choices: chosen }), [`a ${headSeq}`]);
});

test('a topic that a minting inserts after its revocation does not count, and cannot be chosen', async (t) => {
  const { choices, mint, revoke } = await openChoices(t);
  await revoke('a');
  const token = await mint(all, ['a', 'b']);

  assert.deepEqual(topicsOf(await choices.read(token)), ['b 0']);
  await assert.rejects(choices.change(token, { add: ['a'], remove: [] }), {
    name: 'topic_not_allowed',
  });
});

test('concurrent changes of a token do not exceed the limit together', async (t) => {
  const { choices, mint } = await openChoices(t);
  const token = await mint(all);
  const topics = listTopics(120);

  const results = await Promise.allSettled(
    [0, 40, 80].map((start) =>
      choices.change(token, { add: topics.slice(start, start + 40), remove: [] }),
    ),
  );

  const statuses = results.map(({ status }) => status).sort();
  assert.deepEqual(statuses, ['fulfilled', 'fulfilled', 'rejected']);
  assert.equal((await choices.read(token)).choices.length, 80);
});

test('the topics of a deleted token are deleted, and it cannot choose', async (t) => {
  const { choices, mint, tokens, countRows } = await openChoices(t);
  const [kept, leaked, ended] = [
    await mint(all, ['a', 'b']),
    await mint(all, ['a']),
    await mint(all, ['a', 'b', 'c'], { owner: { ...foreign, sessionId: 'e'.repeat(32) } }),
  ];

  await tokens.revokeLeaked(leaked.hash);
  await tokens.deleteBySessions([ended.sessionId]);

  assert.equal(await countRows(), 2);
  assert.deepEqual(topicsOf(await choices.read(kept)), ['a 0', 'b 0']);
  for (const token of [leaked, ended]) {
    await assert.rejects(choices.read(token), { name: 'invalid_token' });
    await assert.rejects(choices.change(token, { add: ['a'], remove: [] }), {
      name: 'invalid_token',
    });
  }
});

test('an extension removes the chosen topics that the fresh rights do not cover, as a loss', async (t) => {
  const { choices, mint, tokens, entries, loss } = await openChoices(t);
  const token = await mint(all, ['a', 'b', 'c:1']);
  const rights: TopicRights = new Map([
    ['a', ['listen']],
    ['b', ['history']],
    ['c:*', ['presence', 'listen']],
  ]);
  const grant = { endsAt: foreign.endsAt + 1, mintedSeq: 0, rights };

  await tokens.extend(token, grant);

  const { hash: tokenHash } = token;
  assert.deepEqual(await entries(), [
    { kind: 'token_extended', extension: { tokenHash, endsAt: grant.endsAt } },
    { kind: 'choices_removed', choice: { tokenHash, topics: ['b'] } },
  ]);
  const { choices: chosen, headSeq } = await choices.read(token);
  assert.deepEqual(topicsOf({ choices: chosen }), ['a 0', 'c:1 0']);
  assert.equal(await loss(foreign.userId), headSeq);
  await assert.rejects(choices.change(token, { add: ['x'], remove: [] }), {
    name: 'topic_not_allowed',
  });
  await choices.change(token, { add: ['c:2'], remove: [] });
  await tokens.extend(token, { ...grant, rights: noRights });
  assert.ok(((await loss(foreign.userId)) ?? 0) > headSeq);
  assert.deepEqual(topicsOf(await choices.read(token)), []);
});

test('a topic that a revocation has voided does not count again after an extension', async (t) => {
  const { choices, mint, tokens, revoke, entries, loss } = await openChoices(t);
  const seq = await revoke('a');
  const token = await mint(all, ['a', 'b']);

  await tokens.extend(token, { endsAt: foreign.endsAt, mintedSeq: seq, rights: all });

  const kinds = (await entries(seq)).map((entry) => entry?.kind);
  assert.deepEqual([kinds, await loss(foreign.userId)], [['token_extended'], 0]);
  assert.deepEqual(topicsOf(await choices.read(token)), ['b 0']);
  await choices.change(token, { add: ['a'], remove: [] });
});

test('an extension by a credential from before a revocation removes the topic', async (t) => {
  const { choices, mint, tokens, revoke, loss } = await openChoices(t);
  const seq = await revoke('a');
  const token = await mint(all, ['a', 'b'], { mintedSeq: seq });

  await tokens.extend(token, { endsAt: foreign.endsAt, mintedSeq: seq - 1, rights: all });

  assert.deepEqual(topicsOf(await choices.read(token)), [`b ${seq}`]);
  assert.ok(((await loss(foreign.userId)) ?? 0) > seq);
});

test('a token of version 0.1.0 gets rights that a revocation voids', async (t) => {
  const { choices, mint, tokens, db, appendControlEntries, local, replaceRights } =
    await openChoices(t);
  const revocations = new Revocations({ db, wallClock: () => now, appendControlEntries });
  const lookup = new TopicLookup(db, trimmedSeqSql);
  const token = await mint(noRights, [], { owner: local });
  await db.execute(
    sql`update stream_tokens set subject = null, public_id = null, minted_seq = null,
        rights_seq = null`,
  );
  const readOpened = async () => {
    const { rows } = await lookup.read({ userId: local.userId, tokenHash: token.hash });
    return rows.choices.map(({ topic }) => topic);
  };

  await replaceRights(all);
  await choices.change(token, { add: ['a', 'b'], remove: [] });
  assert.deepEqual(await readOpened(), ['a', 'b']);
  await revocations.revoke({ topic: 'a', userIds: [local.userId] });

  assert.deepEqual(await readOpened(), ['b']);
  await assert.rejects(choices.change(token, { add: ['a'], remove: [] }), {
    name: 'topic_not_allowed',
  });
  await db.execute(sql`insert into token_topics values (${token.hash}, 'a', 0)`);
  assert.deepEqual(await readOpened(), ['b']);
  assert.equal((await choices.read(token)).choices.length, 1);
  await db.execute(
    sql`insert into disconnects (user_id, target, seq, issued_before, created_at)
      values (${local.userId}, ${token.publicId}, 100, 0, 0)`,
  );
  await assert.rejects(tokens.find(token.text), { name: 'invalid_token' });
});

test('rights that an account gets after a revocation are not voided by it', async (t) => {
  const { choices, mint, revoke, local, replaceRights, db } = await openChoices(t);
  const token = await mint(all, [], { owner: local });
  await revoke('a', local.userId);

  await replaceRights(all);
  await choices.change(token, { add: ['a'], remove: [] });
  assert.equal((await choices.read(token)).choices.length, 1);
  await db.execute(sql`delete from topic_revocations`);
  await revoke('a', local.userId);

  assert.deepEqual(topicsOf(await choices.read(token)), []);
  await assert.rejects(choices.change(token, { add: ['a'], remove: [] }), {
    name: 'topic_not_allowed',
  });
});

test('an extension by a process of an earlier version does not revive a revoked right', async (t) => {
  const { choices, mint, revoke, db } = await openChoices(t);
  const token = await mint(all);
  const seq = await revoke('a');
  await db.execute(sql`update stream_tokens set ends_at = ends_at + 1, minted_seq = ${seq}`);

  await assert.rejects(choices.change(token, { add: ['a'], remove: [] }), {
    name: 'topic_not_allowed',
  });
  await choices.change(token, { add: ['b'], remove: [] });
});

test('topics that a revocation has voided are deleted without an entry when rights are replaced', async (t) => {
  const { choices, mint, revoke, entries, loss, local, replaceRights, countRows } =
    await openChoices(t);
  const seq = await revoke('a', local.userId);
  const token = await mint(all, ['a', 'b'], { owner: local });

  await replaceRights(all);

  assert.deepEqual(await entries(seq), []);
  assert.equal(await loss(local.userId), 0);
  assert.deepEqual([topicsOf(await choices.read(token)), await countRows()], [['b 0'], 1]);
});

test('when several tokens lose topics, the loss is the number of the first entry', async (t) => {
  const { choices, mint, loss, local, replaceRights } = await openChoices(t);
  const token = await mint(all, ['a'], { owner: local });
  await mint(all, ['a'], { owner: local });

  await replaceRights(noRights);

  const { headSeq } = await choices.read(token);
  assert.deepEqual([await loss(local.userId), headSeq], [1, 2]);
});

test('the extension of a local token replaces its rights alone', async (t) => {
  const { choices, mint, tokens, entries, local } = await openChoices(t);
  const token = await mint(new Map([['a', ['listen']]]), ['a'], { owner: local });

  await tokens.extend(token, { endsAt: undefined, mintedSeq: 0, rights: all });

  assert.deepEqual(await entries(), []);
  await choices.change(token, { add: ['b'], remove: [] });
  assert.deepEqual((await choices.read(token)).choices.length, 2);
});

test('new rights of an account apply to its tokens, and remove what they do not cover as a loss', async (t) => {
  const { choices, mint, entries, loss, local, replaceRights } = await openChoices(t);
  const [first, second] = [
    await mint(all, ['a', 'b'], { owner: local }),
    await mint(all, ['a'], { owner: local }),
  ];
  const ticket = await mint(all, ['b'], { owner: { ...foreign, userId: local.userId } });

  await replaceRights(new Map([['a', ['listen']]]));

  const removal = { kind: 'choices_removed', choice: { tokenHash: first.hash, topics: ['b'] } };
  assert.deepEqual(await entries(), [removal]);
  const { choices: chosen, headSeq } = await choices.read(first);
  assert.deepEqual(topicsOf({ choices: chosen }), ['a 0']);
  assert.equal(await loss(local.userId), headSeq);
  assert.deepEqual(topicsOf(await choices.read(second)), ['a 0']);
  assert.deepEqual(topicsOf(await choices.read(ticket)), ['b 0']);
  await assert.rejects(choices.change(second, { add: ['b'], remove: [] }), {
    name: 'topic_not_allowed',
  });
  await choices.change(ticket, { add: ['c'], remove: [] });
});

test('new rights that cover every chosen topic leave no loss', async (t) => {
  const { mint, entries, loss, local, replaceRights } = await openChoices(t);
  await mint(all, ['a', 'b'], { owner: local });

  await replaceRights(new Map([['*', ['listen', 'history']]]));

  assert.deepEqual(await entries(), []);
  assert.equal(await loss(local.userId), 0);
});

test('a token is not minted or extended with rights that have changed since they were read', async (t) => {
  const { mint, tokens, countRows, local, db } = await openChoices(t);
  const token = await mint(all, ['a'], { owner: local });
  const refused = { name: 'service_unavailable' };
  const confirmRights = async () => false;

  const grant = { mintedSeq: 0, rights: noRights, confirmRights };
  await assert.rejects(tokens.extend(token, { ...grant, endsAt: undefined }), refused);
  const minting = tokens.mint({
    ...{ ...local, beginning: 'e-0', mintedSeq: 0, rights: all, topics: ['a'], confirmRights },
  });
  await assert.rejects(minting, refused);

  assert.equal(await countRows(), 1);
  const confirm = (rights: string | null) =>
    db.transaction((tx) => tokens.confirmRights(tx, token.hash, rights));
  assert.equal(await confirm('{"*":["listen"]}'), true);
  assert.equal(await confirm('{"*":["Listen"]}'), false);
  assert.equal(await confirm(null), false);
  await db.execute(sql`update stream_tokens set rights = null`);
  assert.equal(await confirm(null), true);
});

test('a topic that is chosen while it is revoked is not chosen afterwards, and its entry is not the last', async (t) => {
  const { choices, mint, db, appendControlEntries, entries } = await openChoices(t);
  const revocations = new Revocations({ db, wallClock: () => now, appendControlEntries });

  for (let round = 0; round < 10; round += 1) {
    const topic = `round:${round}`;
    const token = await mint(all, [], { mintedSeq: (await choices.read(await mint(all))).headSeq });
    await Promise.allSettled([
      choices.change(token, { add: [topic], remove: [] }),
      revocations.revoke({ topic, userIds: [foreign.userId] }),
    ]);

    assert.deepEqual(topicsOf(await choices.read(token)), []);
    assert.equal((await entries()).at(-1)?.kind, 'topic_revoked');
  }
});

test('a topic that is chosen while the rights are replaced is covered by them afterwards', async (t) => {
  const { choices, mint, local, replaceRights } = await openChoices(t);

  for (let round = 0; round < 10; round += 1) {
    const token = await mint(all, ['a'], { owner: local });
    await Promise.allSettled([
      choices.change(token, { add: ['b'], remove: [] }),
      replaceRights(new Map([['a', ['listen']]])),
    ]);

    assert.deepEqual(topicsOf(await choices.read(token)), ['a 0']);
  }
});

test('extensions and removals of members at the same time both succeed', async (t) => {
  const { choices, mint, tokens, db, appendControlEntries } = await openChoices(t);
  const memberships = new Memberships({ db, appendControlEntries, headSeqSql });
  const { userId, endsAt } = foreign;

  for (let round = 0; round < 10; round += 1) {
    const token = await mint(all, ['a', 'b']);
    await Promise.all([
      tokens.extend(token, { endsAt, mintedSeq: 0, rights: new Map([['a', ['listen']]]) }),
      memberships.change({ topic: `x:${round}`, add: [], remove: [userId] }),
      memberships.change({ topic: `y:${round}`, add: [{ userId, rights: [] }], remove: [] }),
    ]);

    const { choices: chosen, memberships: count } = await choices.read(token);
    assert.deepEqual([topicsOf({ choices: chosen }), count], [['a 0'], round + 1]);
  }
});
