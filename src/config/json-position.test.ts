import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findJsonError } from './json-position.js';

// [text, line, column]
for (const [text, line, column] of [
  ['', 1, 1],
  [' \n', 2, 1],
  ['[', 1, 2],
  ['[{"a": 1},\n  {"b": 2},\n]', 3, 1],
  ['[{"a": 1}\n  {"b": 2}]', 2, 3],
  ['{"a": 1,}', 1, 9],
  ['{"a" 1}', 1, 6],
  ['{a: 1}', 1, 2],
  ["['a']", 1, 2],
  ['[1, // one\n2]', 1, 5],
  ['{"a": [1, 2}', 1, 12],
  ['[1]]', 1, 4],
  ['[] []', 1, 4],
  ['[01]', 1, 2],
  ['[1.]', 1, 2],
  ['[tru]', 1, 2],
  ['["a\nb"]', 1, 2],
  ['["\\x"]', 1, 2],
  ['["\\u12"]', 1, 2],
  ['["a]', 1, 2],
  ['[\r\n"a" "b"]', 2, 5],
  [']', 1, 1],
  [',', 1, 1],
  ['{"a":1,2}', 1, 8],
  ['{"a":"\u{1F41D}é\x7f\\n\\u00e9",\n"b":-1.5e+9,"c":[true,null,{},[]]} x', 2, 36],
] as const) {
  test(`the syntax error in ${JSON.stringify(text)} is at line ${line}, column ${column}`, () => {
    assert.throws(() => JSON.parse(text));

    const found = findJsonError(text);

    assert.deepEqual([found.line, found.column], [line, column]);
    assert.equal(found.isEnd, /^(| \n|\[)$/.test(text));
  });
}
