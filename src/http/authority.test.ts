import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isSameAuthority } from './authority.js';

test('authorities are equal if they differ only in case or the default port of the scheme', () => {
  // [one, other, scheme, whether they are equal]
  const cases = [
    ['a.example', 'A.Example', 'https', true],
    ['a.example', 'a.example:443', 'https', true],
    ['a.example:443', 'A.example', 'https', true],
    ['a.example', 'a.example:80', 'http', true],
    ['[2001:db8::1]', '[2001:DB8::1]:443', 'https', true],
    ['a.example:8443', 'a.example:8443', 'https', true],
    ['a.example', 'a.example:80', 'https', false],
    ['a.example', 'a.example:443', 'http', false],
    ['a.example', 'a.example:443', '', false],
    ['a.example', 'a.example:8443', 'https', false],
    ['a.example', 'b.example', 'https', false],
    ['a.example', 'a.example.', 'https', false],
  ] as const;

  for (const [one, other, scheme, expected] of cases) {
    assert.equal(isSameAuthority(one, other, scheme), expected, `${one} ${other} ${scheme}`);
  }
});
