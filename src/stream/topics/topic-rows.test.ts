import assert from 'node:assert/strict';
import { test } from 'node:test';
import { noStoredRows, type TopicEntry, TopicRows } from './topic-rows.js';

const audiences = ['all', 'u:1', 's:1'];
const added = entryFor('members_added');
const removed = entryFor('members_removed');
const revoked = entryFor('topic_revoked');
const chosen = choiceFor('topics_chosen');
const givenUp = choiceFor('topics_given_up');

function entryFor(kind: 'members_added' | 'members_removed' | 'topic_revoked') {
  return (topic: string): TopicEntry => ({ kind, members: { topic, userIds: ['1'] } });
}

function choiceFor(kind: 'topics_chosen' | 'topics_given_up' | 'choices_removed') {
  return (...topics: string[]): TopicEntry => ({ kind, choice: { tokenHash: 'h', topics } });
}

function createRows(memberships: readonly string[] = [], choices: readonly string[] = []) {
  const toRows = (topics: readonly string[]) => topics.map((topic) => ({ topic, since: 10 }));
  return new TopicRows(audiences, { memberships: toRows(memberships), choices: toRows(choices) });
}

test('a row of either kind covers the events with higher numbers', () => {
  const rows = createRows(['member'], ['chosen']);

  for (const topic of ['t:member', 't:chosen']) {
    assert.equal(rows.covers(topic, 10), false, topic);
    assert.equal(rows.covers(topic, 11), true, topic);
  }
  assert.equal(rows.covers('t:other', 11), false);
  assert.equal(rows.covers('t:Member', 11), false);
});

test('a reader has the lower number of a topic with two rows', () => {
  const rows = new TopicRows(audiences, {
    memberships: [
      { topic: 'a', since: 5 },
      { topic: 'b', since: 9 },
    ],
    choices: [
      { topic: 'b', since: 7 },
      { topic: 'c', since: 8 },
    ],
  });

  assert.deepEqual(rows.reader.audiences, audiences);
  assert.deepEqual(
    [...rows.reader.topics],
    [
      ['t:a', 5],
      ['t:b', 7],
      ['t:c', 8],
    ],
  );
  assert.equal(rows.membershipCount, 2);
});

test('a reader does not change when the rows do', () => {
  const rows = createRows(['a']);
  const { reader } = rows;

  rows.apply(added('b'), 11);
  rows.apply(removed('a'), 12);

  assert.deepEqual([...reader.topics], [['t:a', 10]]);
  assert.deepEqual([...rows.reader.topics], [['t:b', 11]]);
});

test('chosen topics are listed by name', () => {
  const rows = createRows(['x'], ['b', 'a']);
  rows.apply(chosen('aa', 'c'), 12);

  assert.deepEqual(rows.choices, [
    { topic: 'a', since: 10 },
    { topic: 'aa', since: 12 },
    { topic: 'b', since: 10 },
    { topic: 'c', since: 12 },
  ]);
});

test('a row that is there is not added again', () => {
  const rows = createRows(['a'], ['b']);

  const nothing = { added: [], removed: [], isChanged: false, isRemoval: false };
  assert.deepEqual(rows.apply(added('a'), 12), nothing);
  assert.deepEqual(rows.apply(chosen('b'), 13), nothing);
  assert.deepEqual(rows.apply(chosen('a', 'c'), 14), {
    ...{ added: ['c'], removed: [], isChanged: true, isRemoval: false },
  });
  assert.equal(rows.covers('t:a', 11), true);
});

test('the end of a membership leaves the choice, and giving up the choice leaves the membership', () => {
  const first = createRows(['a'], ['a']);
  const second = createRows(['a'], ['a']);

  const isKept = { added: [], removed: [], isChanged: true };
  assert.deepEqual(first.apply(removed('a'), 12), { ...isKept, isRemoval: true });
  assert.deepEqual(second.apply(givenUp('a'), 12), { ...isKept, isRemoval: false });

  assert.deepEqual([first.membershipCount, first.choices.length], [0, 1]);
  assert.deepEqual([second.membershipCount, second.choices.length], [1, 0]);
  assert.ok(first.covers('t:a', 13) && second.covers('t:a', 13));
});

test('a revocation removes rows of both kinds', () => {
  for (const rows of [createRows(['a'], ['a']), createRows(['a']), createRows([], ['a'])]) {
    const change = { added: [], removed: ['a'], isChanged: true, isRemoval: true };
    assert.deepEqual(rows.apply(revoked('a'), 12), change);
    assert.equal(rows.covers('t:a', 13), false);
  }
});

test('choices that are no longer allowed are removed as by the backend', () => {
  const rows = createRows(['a'], ['b', 'c', 'd']);

  const change = rows.apply(choiceFor('choices_removed')('b', 'd', 'x'), 12);

  assert.deepEqual(change, { added: [], removed: ['b', 'd'], isChanged: true, isRemoval: true });
  assert.deepEqual([...rows.topicAudiences], ['t:a', 't:c']);
});

test('the removal of a topic without a row changes nothing', () => {
  const rows = createRows([], ['a']);

  const nothing = { added: [], removed: [], isChanged: false };
  for (const entry of [removed('a'), removed('b'), revoked('b')])
    assert.deepEqual(rows.apply(entry, 12), { ...nothing, isRemoval: true });
  assert.deepEqual(rows.apply(givenUp('b'), 12), { ...nothing, isRemoval: false });
});

test('a row that was added after an entry is not removed by it', () => {
  const rows = createRows(['a'], ['a']); // Added by entry 10, and read after entry 9 was appended.

  rows.apply(removed('a'), 9);
  rows.apply(revoked('a'), 9);
  rows.apply(givenUp('a'), 9);

  assert.deepEqual([rows.membershipCount, rows.choices.length], [1, 1]);
});

test('streams without topics share one map', () => {
  const [first, second] = [new TopicRows(audiences, noStoredRows), createRows()];

  assert.equal(first.reader.topics, second.reader.topics);
  assert.equal(first.reader, first.reader);
});
