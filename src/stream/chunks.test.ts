import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Chunks } from './chunks.js';

const frame = (text: string) => ({ seq: 1, bytes: Buffer.from(text) });

test('frames are put together in order', () => {
  const chunks = new Chunks();

  assert.equal(String(chunks.join(['a', 'b', 'c'].map(frame))), 'abc');
});

test('a single frame is the very buffer it came in', () => {
  const only = frame('a');

  assert.equal(new Chunks().join([only]), only.bytes);
});

test('whoever gets the same frames gets the same bytes', () => {
  const chunks = new Chunks();
  const [a, b, c] = ['a', 'b', 'c'].map(frame);
  assert.ok(a && b && c);
  const first = chunks.join([a, b]);

  assert.equal(chunks.join([a, b]), first);
  assert.equal(String(chunks.join([a, c])), 'ac');
  assert.equal(String(chunks.join([a, b, c])), 'abc');
  assert.equal(chunks.join([a, b]), first);
});

test('frames that look the same but are others are put together anew', () => {
  const chunks = new Chunks();
  const first = chunks.join([frame('a'), frame('b')]);

  assert.notEqual(chunks.join([frame('a'), frame('b')]), first);
});

test('16 chunks are remembered, and the oldest goes first', () => {
  const chunks = new Chunks();
  const pairs = Array.from({ length: 17 }, (_, index) => [frame(`${index}`), frame('.')]);
  const joined = pairs.map((pair) => chunks.join(pair));

  assert.equal(chunks.join(pairs[1] ?? []), joined[1]);
  assert.notEqual(chunks.join(pairs[0] ?? []), joined[0]);
});
