import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ChunkCache } from './chunk-cache.js';

const frame = (text: string) => ({ seq: 1, bytes: Buffer.from(text) });

test('frames are concatenated in order', () => {
  const chunks = new ChunkCache();

  assert.equal(String(chunks.concat(['a', 'b', 'c'].map(frame))), 'abc');
});

test('a single frame is returned without copying', () => {
  const only = frame('a');

  assert.equal(new ChunkCache().concat([only]), only.bytes);
});

test('two calls with the same frames return the same buffer', () => {
  const chunks = new ChunkCache();
  const [a, b, c] = ['a', 'b', 'c'].map(frame);
  assert.ok(a && b && c);
  const first = chunks.concat([a, b]);

  assert.equal(chunks.concat([a, b]), first);
  assert.equal(String(chunks.concat([a, c])), 'ac');
  assert.equal(String(chunks.concat([a, b, c])), 'abc');
  assert.equal(chunks.concat([a, b]), first);
});

test('different frames with equal bytes do not share a buffer', () => {
  const chunks = new ChunkCache();
  const first = chunks.concat([frame('a'), frame('b')]);

  assert.notEqual(chunks.concat([frame('a'), frame('b')]), first);
});

test('16 chunks are cached, and the oldest is evicted first', () => {
  const chunks = new ChunkCache();
  const pairs = Array.from({ length: 17 }, (_, index) => [frame(`${index}`), frame('.')]);
  const joined = pairs.map((pair) => chunks.concat(pair));

  assert.equal(chunks.concat(pairs[1] ?? []), joined[1]);
  assert.notEqual(chunks.concat(pairs[0] ?? []), joined[0]);
});
