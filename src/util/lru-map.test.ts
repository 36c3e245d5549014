import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LruMap } from './lru-map.js';

test('adding an entry over the maximum evicts the entry that was set or used least recently', () => {
  const map = new LruMap<string, number>(3);
  for (const [index, key] of ['a', 'b', 'c'].entries()) map.set(key, index);
  map.use('a');
  map.set('b', 10);

  map.set('d', 3);

  assert.deepEqual(
    [...map],
    [
      ['a', 0],
      ['b', 10],
      ['d', 3],
    ],
  );
});

test('get() does not count as a use, and setting an existing key evicts nothing', () => {
  const map = new LruMap<string, number>(2);
  map.set('a', 1);
  map.set('b', 2);
  map.get('a');
  map.set('b', 3);
  assert.equal(map.size, 2);

  map.set('c', 4);

  assert.equal(map.get('a'), undefined);
  assert.equal(map.use('none'), undefined);
  assert.equal(map.size, 2);
});

test('deleting an entry of an LruMap makes room for another', () => {
  const map = new LruMap<string, number>(2);
  map.set('a', 1);
  map.set('b', 2);
  map.delete('a');
  map.delete('a');

  map.set('c', 3);

  assert.deepEqual([map.get('b'), map.get('c'), map.size], [2, 3, 2]);
});
