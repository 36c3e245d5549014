import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseStrictBody, parseStrictQuery } from './strict-fields.js';

test('a body is an object with known fields', () => {
  assert.deepEqual({ ...parseStrictBody({ a: 1 }, ['a', 'b']) }, { a: 1 });
  assert.deepEqual(parseStrictBody(undefined, ['a']), {});
});

test('a body that is no object is refused', () => {
  for (const body of [null, 1, 'a', [], true])
    assert.throws(() => parseStrictBody(body, ['a']), { name: 'invalid_request' });
});

test('an unknown field of a body is named', () => {
  for (const name of ['c', 'A', 'constructor', 'toString'])
    assert.throws(
      () => parseStrictBody(JSON.parse(`{"a":1,"${name}":2}`), ['a', 'b']),
      { name: 'invalid_request', info: { field: name } },
      name,
    );
});

test('an unknown field that cannot be a mistyped name is not echoed', () => {
  assert.throws(() => parseStrictBody({ '<b>': 1 }, ['a']), { info: { field: 'body' } });
});

test('a query has known parameters, each at most once', () => {
  assert.deepEqual(
    { ...parseStrictQuery(new URLSearchParams('a=1&b='), ['a', 'b']) },
    {
      a: '1',
      b: '',
    },
  );
  assert.throws(() => parseStrictQuery(new URLSearchParams('a=1&c=1'), ['a']), {
    info: { field: 'c' },
  });
  assert.throws(() => parseStrictQuery(new URLSearchParams('a=1&a=1'), ['a']), {
    info: { field: 'a' },
  });
  assert.throws(() => parseStrictQuery(new URLSearchParams('constructor=1'), []), {
    info: { field: 'constructor' },
  });
});
