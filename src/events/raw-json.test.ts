import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { minify, sliceElements, sliceMember } from './raw-json.js';

test('members and elements keep the digits of their numbers and their duplicate members', () => {
  const texts = [
    '12345678901234567890',
    '-0',
    '-0.0',
    '1e400',
    '1.10',
    '{"a":1,"a":2}',
    '{"2":0,"1":0}',
    '"\\u0041\\/"',
    '[0.1000,{"n":9007199254740993}]',
  ];

  for (const text of texts) {
    assert.equal(sliceMember(`{"to":"all","data":${text}}`, 'data'), text);
    assert.deepEqual(sliceElements(` [ {"data" : ${text} } , ${text}\n] `), [
      `{"data" : ${text} }`,
      text,
    ]);
  }
});

test('minify removes whitespace outside of strings only', () => {
  assert.equal(minify(' { "a b" : [ 1 , "x \\" y" ,\r\n\t2 ] } '), '{"a b":[1,"x \\" y",2]}');
});

test('of several members with the same name, the last is returned', () => {
  assert.equal(sliceMember('{"data":1,"d\\u0061ta":2,"other":{"data":3}}', 'data'), '2');
});

test('a JSON text that is not an object or lacks the member has no such member', () => {
  for (const text of ['1', '"data"', 'null', '{}', '[1]', '[{"data":1}]'])
    assert.equal(sliceMember(text, 'data'), undefined, text);
  assert.deepEqual(sliceElements('[]'), []);
});

test('a member is found at any place in any object, whatever the whitespace', () => {
  fc.assert(
    fc.property(
      fc.array(fc.dictionary(fc.string(), fc.jsonValue()), { maxLength: 5 }),
      fc.jsonValue(),
      fc.constantFrom('', ' ', '\n', '\t'),
      (objects, data, indent) => {
        const items = objects.map((object, index) => (index % 2 ? { ...object, data } : object));
        const text = JSON.stringify(items, null, indent);
        const expected = items.map((item) =>
          'data' in item ? JSON.stringify(item['data']) : undefined,
        );
        const elements = sliceElements(text);
        assert.deepEqual(
          elements.map((element) => sliceMember(element, 'data')),
          expected,
        );
        assert.equal(minify(text), JSON.stringify(items));
      },
    ),
    { numRuns: 2000 },
  );
});
