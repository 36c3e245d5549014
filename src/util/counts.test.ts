import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Counts } from './counts.js';

test('a key is dropped when its count reaches 0, and a count never falls below 0', () => {
  const counts = new Counts<string>();
  counts.add('a');
  counts.add('a');
  counts.add('b');
  assert.deepEqual([counts.get('a'), counts.get('b'), counts.size], [2, 1, 2]);

  counts.remove('a');
  counts.remove('b');
  assert.deepEqual([counts.get('a'), counts.get('b'), counts.size], [1, 0, 1]);

  counts.remove('b');
  assert.equal(counts.get('b'), 0);

  counts.add('c', 10);
  counts.remove('c', 4);
  assert.equal(counts.get('c'), 6);
});
