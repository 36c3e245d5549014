import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MultiMap } from './multi-map.js';

test('a MultiMap returns the values of a key that were added and not deleted', () => {
  const map = new MultiMap<string, number>();
  map.add('a', 1);
  map.add('a', 2);
  map.add('a', 2);
  map.add('b', 1);

  map.delete('a', 1);
  map.delete('c', 1);

  assert.deepEqual([...map.get('a')], [2]);
  assert.deepEqual([...map.get('b')], [1]);
  assert.deepEqual([...map.get('c')], []);
});

test('a MultiMap keeps no key without values', () => {
  const map = new MultiMap<string, number>();
  map.add('a', 1);
  assert.equal(map.size, 1);

  map.delete('a', 1);

  assert.equal(map.size, 0);
});
