import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatPosition, parsePosition } from './event-id.js';

test('a position comes back as it went out', () => {
  const position = { epoch: 'k3x9', seq: 42 };

  assert.deepEqual(parsePosition(formatPosition(position)), position);
});

const odd = ['', '-', 'a-', '-1', 'a-01', 'a--1', 'a-1-', 'A-1', 'a-1 ', 'a-1\n', 'a-1e3', 'é-1'];

for (const text of [...odd, 'a-1234567890123456', `${'a'.repeat(17)}-1`, "a-1' or '1'='1"]) {
  test(`${JSON.stringify(text)} is no position`, () => {
    assert.equal(parsePosition(text), undefined);
  });
}
