import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  formatTopicRights,
  isAllowed,
  mergeRights,
  noRights,
  parseStoredRights,
  parseTopicRights,
  type TopicRights,
} from './topic-rights.js';

function parse(value: unknown): TopicRights {
  const rights = parseTopicRights(value);
  assert.ok(typeof rights !== 'string', String(rights));
  return rights;
}

/** Returns rights of this many patterns. */
function createRights(count: number): Record<string, string[]> {
  return Object.fromEntries(
    Array.from({ length: count }, (_, index) => [`t:${index}`, ['listen']]),
  );
}

/** Returns rights of this many bytes as JSON. */
function createBytes(bytes: number): Record<string, string[]> {
  const pattern = (index: number, length: number) => `${index}`.padStart(length, 'x');
  const rights = Object.fromEntries(
    Array.from({ length: 28 }, (_, index) => [pattern(index, 128), ['listen']]),
  );
  const rest = bytes - JSON.stringify({ ...rights, '': ['listen'] }).length;
  return { ...rights, [pattern(99, rest)]: ['listen'] };
}

test('rights allow an action on the topics that a pattern with this action matches', () => {
  const rights = parse({ 'orders:17': ['listen', 'history'], 'team:3:*': ['presence'] });

  assert.equal(isAllowed(rights, 'orders:17', 'listen'), true);
  assert.equal(isAllowed(rights, 'orders:17', 'history'), true);
  assert.equal(isAllowed(rights, 'orders:17', 'presence'), false);
  assert.equal(isAllowed(rights, 'orders:1', 'listen'), false);
  assert.equal(isAllowed(rights, 'Orders:17', 'listen'), false);
  assert.equal(isAllowed(rights, 'team:3:chat', 'presence'), true);
  assert.equal(isAllowed(rights, 'team:3:chat', 'listen'), false);
  assert.equal(isAllowed(noRights, 'orders:17', 'listen'), false);
});

test('rights have at most 100 patterns and 4096 bytes as JSON', () => {
  assert.equal(parse(createRights(100)).size, 100);
  assert.equal(parseTopicRights(createRights(101)), 'must have at most 100 patterns');
  assert.equal(Buffer.byteLength(JSON.stringify(createBytes(4096))), 4096);
  assert.equal(parse(createBytes(4096)).size, 29);
  assert.equal(parseTopicRights(createBytes(4097)), 'must have at most 4096 bytes as JSON');
});

// [description, value, rest of the message]
const invalidRights: readonly (readonly [string, unknown, RegExp])[] = [
  ['null', null, /^must be an object/],
  ['a list', [['a', ['listen']]], /^must be an object/],
  ['a text', 'a', /^must be an object/],
  ['an invalid pattern', { 'a*': ['listen'] }, /^has an invalid pattern/],
  ['an empty pattern', { '': ['listen'] }, /^has an invalid pattern/],
  ['a reserved pattern', { 'herald:*': ['listen'] }, /^has an invalid pattern/],
  ['no action', { a: [] }, /^must give each pattern a list of listen, history, presence/],
  ['an unknown action', { a: ['publish'] }, /^must give each pattern a list/],
  ['an action in another case', { a: ['Listen'] }, /^must give each pattern a list/],
  ['a repeated action', { a: ['listen', 'listen'] }, /^must give each pattern a list/],
  ['a text for a list', { a: 'listen' }, /^must give each pattern a list/],
  ['null for a list', { a: null }, /^must give each pattern a list/],
];

for (const [what, value, message] of invalidRights) {
  test(`rights with ${what} are refused`, () => {
    assert.match(String(parseTopicRights(value)), message);
  });
}

test('the names of inherited members are patterns like any other', () => {
  const text = '{"__proto__":["listen"],"constructor":["history"]}';

  const rights = parse(JSON.parse(text));

  assert.equal(isAllowed(rights, '__proto__', 'listen'), true);
  assert.equal(isAllowed(rights, 'toString', 'listen'), false);
  assert.equal(formatTopicRights(rights), text);
  assert.deepEqual(parseStoredRights(formatTopicRights(rights)), rights);
});

test('stored rights are the rights that were formatted', () => {
  const rights = parse({ '*': ['presence'], 'a:*': ['listen', 'history'] });

  assert.deepEqual(parseStoredRights(formatTopicRights(rights)), rights);
  assert.deepEqual(parseStoredRights(null), noRights);
});

test('merged rights allow what any of them allows', () => {
  const merged = mergeRights(
    parse({ a: ['listen'], b: ['history'] }),
    noRights,
    parse({ a: ['history', 'listen'], c: ['presence'] }),
  );

  assert.deepEqual(merged, parse({ a: ['listen', 'history'], b: ['history'], c: ['presence'] }));
  assert.equal(mergeRights().size, 0);
});
