import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatPosition, parsePosition } from './event-id.js';

test('a position is unchanged after it is formatted and parsed', () => {
  const position = { epoch: 'k3x9', seq: 42 };

  assert.deepEqual(parsePosition(formatPosition(position)), position);
});

const malformed = [
  '',
  '-',
  'a-',
  '-1',
  'a-01',
  'a--1',
  'a-1-',
  'A-1',
  'a-1 ',
  'a-1\n',
  'a-1e3',
  'é-1',
];

for (const text of [...malformed, 'a-1234567890123456', `${'a'.repeat(17)}-1`, "a-1' or '1'='1"]) {
  test(`${JSON.stringify(text)} is not parsed as a position`, () => {
    assert.equal(parsePosition(text), undefined);
  });
}
