import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseStrictBody, parseStrictQuery } from './strict-fields.js';

test('a body with known fields, or no body, is accepted', () => {
  assert.deepEqual({ ...parseStrictBody({ a: 1 }, ['a', 'b']) }, { a: 1 });
  assert.deepEqual(parseStrictBody(undefined, ['a']), {});
});

test('a body that is not an object is refused', () => {
  for (const body of [null, 1, 'a', [], true])
    assert.throws(() => parseStrictBody(body, ['a']), { name: 'invalid_request' });
});

test('the failure for an unknown field of a body names the field', () => {
  for (const name of ['c', 'A', 'constructor', 'toString'])
    assert.throws(
      () => parseStrictBody(JSON.parse(`{"a":1,"${name}":2}`), ['a', 'b']),
      { name: 'invalid_request', info: { field: name } },
      name,
    );
});

test('the failure for an unknown field contains the name only if it has the form of a field name', () => {
  assert.throws(() => parseStrictBody({ '<b>': 1 }, ['a']), { info: { field: 'body' } });
});

test('a query parameter that is unknown or repeated is refused', () => {
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
