import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isTopic, isTopicPattern, matchesTopic } from './topic.js';

const allowed = [...'ABCXYZabcxyz0189_.:@/~+=-'];

test('a topic has 1 to 128 of the allowed characters', () => {
  for (const character of allowed) assert.equal(isTopic(character), true, character);
  assert.equal(isTopic(allowed.join('')), true);
  assert.equal(isTopic('x'.repeat(128)), true);

  assert.equal(isTopic(''), false);
  assert.equal(isTopic('x'.repeat(129)), false);
});

test('every other character of ASCII, and any character beyond it, is refused in a topic', () => {
  const ascii = Array.from({ length: 128 }, (_, code) => String.fromCharCode(code));
  const others = ascii.filter((character) => !/[\w.:@/~+=-]/.test(character));
  assert.equal(others.length, 128 - 26 * 2 - 10 - 9);

  for (const character of [...others, 'é', 'ſ', '\u212a', '١', '\u{1f600}'])
    assert.equal(isTopic(`a${character}`), false, JSON.stringify(character));
  for (const value of [undefined, null, 7, ['a'], { a: 1 }]) assert.equal(isTopic(value), false);
});

test('a topic that begins with herald: is refused, in this case only', () => {
  assert.equal(isTopic('herald:x'), false);
  assert.equal(isTopic('herald:'), false);
  for (const topic of ['herald', 'heralds:x', 'Herald:x', 'x:herald:', 'herald.x'])
    assert.equal(isTopic(topic), true, topic);
});

test('a pattern is a topic, a prefix up to a separator and an asterisk, or an asterisk', () => {
  const longest = `${'x'.repeat(127)}:`;
  for (const pattern of ['*', 'a', 'a:*', 'a/*', 'a.*', 'a:b/*', ':*', '__proto__', `${longest}*`])
    assert.equal(isTopicPattern(pattern), true, pattern);
  for (const pattern of [
    ...['', 'a*', 'a-*', 'a=*', '**', 'a:**', '*:a', 'a:*b', 'a *', '*a', 'herald:*', 'herald:a'],
    ...[`x${longest}*`, undefined, null, 7],
  ])
    assert.equal(isTopicPattern(pattern), false, String(pattern));
});

// [pattern, topics that it matches, topics that it does not match]
const matches: readonly (readonly [string, readonly string[], readonly string[]])[] = [
  ['*', ['a', 'a:b'], []],
  ['a', ['a'], ['A', 'a:b', 'ab', 'b']],
  ['a:*', ['a:b', 'a:b:c', 'a:'], ['a', 'A:b', 'ab:c', 'b:a:c', 'a.b']],
  ['a.b.*', ['a.b.c'], ['a.b', 'aXb.c', 'a.c']],
  ['__proto__', ['__proto__'], ['constructor']],
];

test('a pattern matches topics exactly, with their case', () => {
  for (const [pattern, matching, others] of matches) {
    for (const topic of matching) assert.equal(matchesTopic(pattern, topic), true, topic);
    for (const topic of others) assert.equal(matchesTopic(pattern, topic), false, topic);
  }
});

test('a pattern matches another pattern if it matches every topic that the other matches', () => {
  for (const [outer, inner] of [
    ['*', '*'],
    ['*', 'a:*'],
    ['a:*', 'a:*'],
    ['a:*', 'a:b:*'],
    ['a:*', 'a:b'],
  ] as const)
    assert.equal(matchesTopic(outer, inner), true, `${outer} ${inner}`);
  for (const [outer, inner] of [
    ['a:*', '*'],
    ['a:b:*', 'a:*'],
    ['a:b', 'a:*'],
    ['a', 'a:*'],
    ['a:*', 'a.*'],
  ] as const)
    assert.equal(matchesTopic(outer, inner), false, `${outer} ${inner}`);
});
