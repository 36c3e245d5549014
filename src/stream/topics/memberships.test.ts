import assert from 'node:assert/strict';
import { serverDialects, testOnDialects } from '../../../test/support/databases/dialects.js';
import { databaseFor } from '../../../test/support/databases/test-database.js';
import {
  countLockedRounds,
  withRoundLog,
} from '../../../test/support/recording/statement-hooks.js';
import { inserts, sql } from '../../db/database.js';
import { controlEntryAppender, headSeqSql } from '../../event-log/open.js';
import { SqlLogStore } from '../../event-log/sql/sql-log-store.js';
import { parseControlEntry } from '../../events/control-entry.js';
import type { TopicAction } from '../../events/topic-rights.js';
import { Memberships, membershipsMax } from './memberships.js';

const test = await testOnDialects('memberships');

async function openMemberships(t: Parameters<typeof databaseFor>[0]) {
  const db = await databaseFor(t);
  const wallClock = () => 1_800_000_000_000;
  await SqlLogStore.open(db, { wallClock, newEpoch: 'e' });
  const appendControlEntries = controlEntryAppender(db, wallClock);
  const memberships = new Memberships({ db, appendControlEntries, headSeqSql });
  const change = (
    topic: string,
    { add = [], remove = [] }: { add?: readonly string[]; remove?: readonly string[] },
    rights: readonly TopicAction[] = [],
  ) => memberships.change({ topic, add: add.map((userId) => ({ userId, rights })), remove });
  const readEntries = async () => {
    const rows = await db.query<{ control: string }>(sql`select control from events order by seq`);
    return rows.map(({ control }) => parseControlEntry(control));
  };
  const readLosses = async () => {
    const rows = await db.query<{ user_id: string; seq: number }>(
      sql`select user_id, seq from topic_losses where seq > 0 order by user_id`,
    );
    return Object.fromEntries(rows.map(({ user_id, seq }) => [user_id, seq]));
  };
  const list = (topic: string, userPrefix = '', after = '', limit = 1000) =>
    memberships.listOfTopic(topic, { userPrefix, after, limit });
  return { db, memberships, change, readEntries, readLosses, list };
}

function createIds(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `u${String(index).padStart(4, '0')}`);
}

test('a member has the number of the entry, which is returned', async (t) => {
  const { change, readEntries, readLosses, list } = await openMemberships(t);

  assert.equal(await change('a', { add: ['1', '2'] }), 1);
  assert.equal(await change('a', { add: ['3'], remove: ['1'] }), 3);

  assert.deepEqual(await readEntries(), [
    { kind: 'members_added', members: { topic: 'a', userIds: ['1', '2'] } },
    { kind: 'members_removed', members: { topic: 'a', userIds: ['1'] } },
    { kind: 'members_added', members: { topic: 'a', userIds: ['3'] } },
  ]);
  assert.deepEqual(await list('a'), [
    { userId: '2', topic: 'a', since: 1, rights: [] },
    { userId: '3', topic: 'a', since: 3, rights: [] },
  ]);
  assert.deepEqual(await readLosses(), { 1: 2 });
});

test('a member that is added again keeps the number, gets the rights, and needs no entry', async (t) => {
  const { change, readEntries, list } = await openMemberships(t);
  await change('a', { add: ['1', '2'] }, ['listen', 'history']);
  await change('b', { add: ['1'] });

  assert.equal(await change('a', { add: ['1'] }, ['presence']), 2); // The newest entry.
  assert.equal(await change('a', { add: ['2', '3'] }), 3);

  assert.deepEqual((await readEntries()).length, 3);
  assert.deepEqual(await list('a'), [
    { userId: '1', topic: 'a', since: 1, rights: ['presence'] },
    { userId: '2', topic: 'a', since: 1, rights: [] },
    { userId: '3', topic: 'a', since: 3, rights: [] },
  ]);
});

test('a removal is a loss also for a user who is no member, and only a newer one replaces it', async (t) => {
  const { change, readLosses } = await openMemberships(t);

  await change('a', { remove: ['1', 'Ada'] });
  await change('a', { add: ['1'] });
  assert.deepEqual(await readLosses(), { 1: 1, Ada: 1 });
  await change('b', { remove: ['1'] });

  assert.deepEqual(await readLosses(), { 1: 3, Ada: 1 });
});

test('topics and users that differ in case are different', async (t) => {
  const { change, list, memberships } = await openMemberships(t);
  await change('Room', { add: ['ada'] });
  await change('room', { add: ['Ada', 'ada'] });
  await change('room', { remove: ['ada'] });

  assert.deepEqual(
    (await list('room')).map(({ userId }) => userId),
    ['Ada'],
  );
  assert.deepEqual(
    (await list('Room')).map(({ userId }) => userId),
    ['ada'],
  );
  assert.deepEqual(
    (await memberships.listOfUser('ada', '')).map(({ topic }) => topic),
    ['Room'],
  );
});

test('topics and user ids can have every allowed character and the greatest length', async (t) => {
  const { change, list, memberships } = await openMemberships(t);
  const characters = Array.from({ length: 94 }, (_, index) => String.fromCharCode(33 + index));
  const allowed = characters.filter((one) => !'",\\*'.includes(one)).join('');
  const userId = allowed.padEnd(255, 'x');
  const topic = 'AZaz09_.:@/~+=-'.padEnd(128, 'x');

  await change(topic, { add: [userId] });

  const membership = { userId, topic, since: 1, rights: [] };
  assert.deepEqual(await list(topic), [membership]);
  assert.deepEqual(await memberships.listOfUser(userId, ''), [membership]);
});

test('a thousand users are added and removed with one entry per 200', async (t) => {
  const { change, readEntries, readLosses, list } = await openMemberships(t);
  const ids = createIds(1000);

  assert.equal(await change('a', { add: ids.toReversed() }), 5);
  assert.equal(await change('a', { remove: ids.slice(0, 401), add: ['x'] }), 9);

  const sizes = (await readEntries()).map((entry) => {
    return entry !== undefined && 'members' in entry ? entry.members.userIds.length : 0;
  });
  assert.deepEqual(sizes, [200, 200, 200, 200, 200, 200, 200, 1, 1]);
  const members = await list('a');
  assert.deepEqual(
    members.map(({ userId }) => userId),
    [...ids.slice(401), 'x'],
  );
  assert.deepEqual([members[0]?.since, members.at(-2)?.since, members.at(-1)?.since], [3, 1, 9]);
  const losses = await readLosses();
  assert.deepEqual([losses['u0000'], losses['u0200'], losses['u0400']], [6, 7, 8]);
});

test('a user is a member of at most 1000 topics, and nothing is changed for one more', async (t) => {
  const { db, memberships, change, readEntries, list } = await openMemberships(t);
  const rows = Array.from({ length: membershipsMax - 1 }, (_, index) => ['1', `t${index}`, 0]);
  const inserting = inserts(sql`insert into topic_members (user_id, topic, since) values `, rows);
  for (const insert of inserting) await db.execute(insert);

  await change('last', { add: ['1', '2'] });
  await assert.rejects(change('more', { add: ['0', '1', '2'], remove: ['3'] }), {
    name: 'conflict',
    status: 409,
    info: { field: 'add', user: '1' },
  });
  await change('last', { add: ['1'] }, ['history']);

  assert.equal((await readEntries()).length, 1);
  assert.deepEqual(await list('more'), []);
  assert.equal((await memberships.listOfUser('1', '')).length, membershipsMax);
});

test('members are listed by pages, and by the beginning of their ids', async (t) => {
  const { change, list, memberships } = await openMemberships(t);
  await change('a', { add: ['shop:2', 'shop:10', 'shop', 'shop;', 'Shop:1', 'shop:~'] });
  for (const topic of ['b', 'B', 'a:1']) await change(topic, { add: ['shop:2'] });
  const ids = async (...args: [string, string, number]) =>
    (await list('a', ...args)).map(({ userId }) => userId);

  assert.deepEqual(await ids('', '', 3), ['Shop:1', 'shop', 'shop:10']);
  assert.deepEqual(await ids('', 'shop:10', 3), ['shop:2', 'shop:~', 'shop;']);
  assert.deepEqual(await ids('shop:', '', 9), ['shop:10', 'shop:2', 'shop:~']);
  assert.deepEqual(await ids('shop:', 'shop:2', 9), ['shop:~']);
  const topics = async (after: string) =>
    (await memberships.listOfUser('shop:2', after)).map(({ topic }) => topic);
  assert.deepEqual(await topics(''), ['B', 'a', 'a:1', 'b']);
  assert.deepEqual(await topics('a'), ['a:1', 'b']);
});

test('changes of the same members at the same time take effect one after the other', async (t) => {
  const { change, readEntries, readLosses, list } = await openMemberships(t);
  const ids = createIds(20);
  const changes = Array.from({ length: 24 }, (_, index) => {
    const users = index % 3 === 0 ? ids : ids.toReversed();
    return index % 2 === 0 ? { add: users } : { remove: users };
  });

  await Promise.all(changes.map((each) => change('a', each)));

  // Replays the entries of the event log.
  const since = new Map<string, number>();
  const losses: Record<string, number> = {};
  for (const [index, entry] of (await readEntries()).entries()) {
    if (entry === undefined || !('members' in entry)) continue;
    for (const id of entry.members.userIds) {
      if (entry.kind === 'members_added') {
        assert.ok(!since.has(id), `${id} is added twice`);
        since.set(id, index + 1);
      } else {
        since.delete(id);
        losses[id] = index + 1;
      }
    }
  }
  const members = (await list('a')).map((member) => [member.userId, member.since]);
  assert.deepEqual(members, [...since].sort());
  assert.deepEqual(await readLosses(), losses);
});

test(
  'changes of other members do not wait for each other',
  async (t) => {
    const { db, change } = await openMemberships(t);
    await change('a', { remove: ['1', '2'] });

    await db.transaction(async (tx) => {
      await tx.query(sql`select seq from topic_losses where user_id = '1' for update`);
      assert.equal(await change('a', { add: ['2'] }), 2);
    });
  },
  serverDialects,
);

test('the statements of a change for which publishers wait are sent together', async (t) => {
  const { db } = await openMemberships(t);
  const rounds: string[][] = [];
  const memberships = new Memberships({
    db: withRoundLog(db, rounds),
    appendControlEntries: controlEntryAppender(db, () => 0),
    headSeqSql,
  });
  const ids = createIds(1000);
  const add = ids.slice(500).map((userId) => ({ userId, rights: [] }));

  await memberships.change({ topic: 'a', add, remove: ids.slice(0, 500) });

  assert.equal(countLockedRounds(rounds), 3); // The numbers, the entries, and the rows.
});
