import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assertKeyAllowsTopics } from './topic-limits.js';

test('a key without a limit names any topic', () => {
  assertKeyAllowsTopics({ topics: undefined }, ['a', '*'], 'topics');
});

test('a key names the topics, and the patterns, that its own patterns cover', () => {
  const key = { topics: ['orders:*', 'news'] };

  assertKeyAllowsTopics(key, [], 'topics');
  assertKeyAllowsTopics(key, ['orders:17', 'news', 'orders:*', 'orders:eu:*'], 'topics');
  assertKeyAllowsTopics({ topics: ['*'] }, ['*', 'a:*', 'a'], 'topics');
});

test('a topic that a key may not name is refused, with all refused topics and no others', () => {
  const key = { topics: ['orders:*', 'news'] };

  assert.throws(
    () => assertKeyAllowsTopics(key, ['*', 'orders:1', 'News', 'news:*', 'orders'], 'rights'),
    {
      name: 'topic_not_allowed',
      status: 403,
      info: { field: 'rights', topics: ['*', 'News', 'news:*', 'orders'] },
    },
  );
});
