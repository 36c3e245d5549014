import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRecipients } from './recipients.js';

const numbered = (count: number) => Array.from({ length: count }, (_, index) => String(index));

test('an event can be addressed to everybody, or to users, sessions and topics together, each once', () => {
  const to = { topics: ['orders:17', 'a', 'a'], sessions: ['ab'], users: ['1', '2', '1'] };

  assert.deepEqual(parseRecipients('all'), ['all']);
  assert.deepEqual(parseRecipients({ users: ['1'] }), ['u:1']);
  assert.deepEqual(parseRecipients({ sessions: ['1'] }), ['s:1']);
  assert.deepEqual(parseRecipients({ topics: ['1'] }), ['t:1']);
  assert.deepEqual(parseRecipients(to), ['u:1', 'u:2', 's:ab', 't:orders:17', 't:a']);
});

test('topics have every allowed character, up to 128 characters, and upper and lower case differ', () => {
  const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
  const topics = [`${letters}0123456789_.:@/~+=-`, 'x'.repeat(128), 'Orders', 'orders', 'herald'];

  assert.deepEqual(
    parseRecipients({ topics }),
    topics.map((topic) => `t:${topic}`),
  );
});

test('an event has at most 1000 users, 1000 sessions, 100 topics, and 1000 recipients in all', () => {
  const count = (to: unknown) => {
    const audiences = parseRecipients(to);
    return 'field' in audiences ? audiences.field : audiences.length;
  };

  assert.equal(count({ users: numbered(1000) }), 1000);
  assert.equal(count({ users: numbered(1001) }), 'to.users');
  assert.equal(count({ sessions: numbered(1000) }), 1000);
  assert.equal(count({ sessions: numbered(1001) }), 'to.sessions');
  assert.equal(count({ topics: numbered(100) }), 100);
  assert.equal(count({ topics: numbered(101) }), 'to.topics');
  assert.equal(count({ users: numbered(900), topics: numbered(100) }), 1000);
  assert.equal(count({ users: numbered(901), topics: numbered(100) }), 'to');
  assert.equal(count({ users: numbered(500), sessions: numbered(501) }), 'to');
});

// [description, to, field, pattern of the reason]
const problems: readonly [string, unknown, string, RegExp][] = [
  [
    'a user id alone',
    '1',
    'to',
    /^must be "all", or an object with some of users, sessions, topics$/,
  ],
  ['a number', 1, 'to', /^must be "all"/],
  ['null', null, 'to', /^must be "all"/],
  ['a list', ['1'], 'to', /^must be "all"/],
  ['an empty object', {}, 'to', /^needs some of users, sessions, topics$/],
  ['an unknown member', { users: ['1'], groups: ['1'] }, 'to.groups', /is not one of the fields/],
  [
    'an unknown member that is no word',
    { 'a\n': ['1'] },
    'to',
    /^must have no fields but users, sessions, topics$/,
  ],
  ['a member of every object', { toString: ['1'] }, 'to.toString', /is not one of the fields/],
  ['no users', { users: [] }, 'to.users', /^must not be empty: it names 1 to 1000$/],
  [
    'no topics',
    { users: ['1'], topics: [] },
    'to.topics',
    /^must not be empty: it names 1 to 100$/,
  ],
  ['101 topics', { topics: numbered(101) }, 'to.topics', /^must name 1 to 100, not 101$/],
  ['null as users', { users: null }, 'to.users', /^must be a list, with each user id as a string$/],
  ['a user without a list', { users: '1' }, 'to.users', /^must be a list/],
  ['a topic without a list', { topics: 'orders:17' }, 'to.topics', /^must be a list/],
  [
    'a number as a user',
    { users: ['1', 2] },
    'to.users',
    /^has a number as item 1: a user id must be a string, such as "42"$/,
  ],
  [
    'a number as a topic',
    { topics: [17] },
    'to.topics',
    /^has a number as item 0: a topic must be a string/,
  ],
  ['a list in a list', { sessions: [['a']] }, 'to.sessions', /^has item 0 that is no string$/],
  [
    'a user id with a line break',
    { users: ['1\n'] },
    'to.users',
    /^has an invalid user id as item 0: a user id must be 1 to 255 printable/,
  ],
  [
    'a session id with a space',
    { sessions: ['a b'] },
    'to.sessions',
    /^has an invalid session id as item 0: a session id must be 1 to 64 of/,
  ],
  [
    'an empty topic',
    { topics: [''] },
    'to.topics',
    /^has an invalid topic as item 0: a topic must be 1 to 128 of/,
  ],
  ['a topic of 129 characters', { topics: ['x'.repeat(129)] }, 'to.topics', /1 to 128/],
  ['a topic with a space', { topics: ['a', 'b c'] }, 'to.topics', /as item 1/],
  ['a topic with a line break', { topics: ['a\n'] }, 'to.topics', /as item 0/],
  ['a topic that is not ASCII', { topics: ['ü'] }, 'to.topics', /as item 0/],
  ['a pattern as a topic', { topics: ['orders:*'] }, 'to.topics', /as item 0/],
  ['a reserved topic', { topics: ['herald:x'] }, 'to.topics', /must not begin with herald:$/],
];

for (const [what, to, field, pattern] of problems) {
  test(`recipients given as ${what} are refused with the field "${field}" and the rule`, () => {
    const problem = parseRecipients(to);

    assert.ok('field' in problem);
    assert.equal(problem.field, field);
    assert.match(problem.reason, pattern);
  });
}
