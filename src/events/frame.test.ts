import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createParser, type EventSourceMessage } from 'eventsource-parser';
import fc from 'fast-check';
import { controlFrame, encodeFrame, isPublishableName } from './frame.js';

/** Parses the bytes with the package `eventsource-parser`. */
function parseEvents(bytes: Buffer): EventSourceMessage[] {
  const events: EventSourceMessage[] = [];
  createParser({ onEvent: (event) => events.push(event) }).feed(bytes.toString());
  return events;
}

test('an event is encoded as its name, its data, its id and one blank line', () => {
  const bytes = encodeFrame({ id: 'e1-7', event: 'job', data: 'done' });

  assert.equal(bytes.toString(), 'event: job\ndata: done\nid: e1-7\n\n');
});

test('the topic of an event is a line before its data', () => {
  const bytes = encodeFrame({ id: 'e1-7', event: 'job', topic: 'orders:17', data: 'a\nb' });

  assert.equal(bytes.toString(), 'event: job\ntopic: orders:17\ndata: a\ndata: b\nid: e1-7\n\n');
  assert.equal(parseEvents(bytes)[0]?.data, 'a\nb');
});

for (const topic of ['', 'a\nid: 9', 'a\r', 'a b', 'a\0', 'herald:x', 'x'.repeat(129)]) {
  test(`the topic ${JSON.stringify(topic)} is refused`, () => {
    assert.throws(() => encodeFrame({ topic, data: 'x' }), TypeError);
  });
}

test('every line of the data is prefixed, whatever its line ending', () => {
  const bytes = encodeFrame({ data: 'a\r\nb\rc\nid: 9\n' });

  assert.equal(bytes.toString(), 'data: a\ndata: b\ndata: c\ndata: id: 9\ndata: \n\n');
});

test('an event with empty data is still received as an event', () => {
  assert.deepEqual(
    parseEvents(encodeFrame({ data: '' })).map((event) => event.data),
    [''],
  );
});

test('a leading space of the data is kept', () => {
  assert.equal(parseEvents(encodeFrame({ data: ' x' }))[0]?.data, ' x');
});

for (const id of ['', 'a\nb', 'a\rb', 'a\0b', 'a b', 'é', 'x'.repeat(65)]) {
  test(`the event id ${JSON.stringify(id)} is refused`, () => {
    assert.throws(() => encodeFrame({ id, data: 'x' }), TypeError);
  });
}

for (const event of ['', 'a\nb', 'a\rdata: x', 'a b', 'a\0', 'x'.repeat(65)]) {
  test(`the event name ${JSON.stringify(event)} is refused`, () => {
    assert.throws(() => encodeFrame({ event, data: 'x' }), TypeError);
  });
}

for (const data of ['a\0b', '\ud800', 'x\udc00y']) {
  test(`the data ${JSON.stringify(data)} is refused, because it cannot be encoded unchanged`, () => {
    assert.throws(() => encodeFrame({ data }), TypeError);
  });
}

test('publishers cannot use event names reserved by the browser or by Herald', () => {
  const names = [
    'error',
    'open',
    'count',
    'stream.open',
    'stream.',
    'message',
    'open2',
    'streamed',
  ];

  assert.deepEqual(names.filter(isPublishableName), ['message', 'open2', 'streamed']);
});

const unusualText = fc
  .array(
    fc.constantFrom('a', ':', ' ', '\r', '\n', '\0', '\ufeff', '\u2028', '🐝', '\ud83d', 'data: '),
  )
  .map((parts) => parts.join(''));

test('any data and name are received as they were encoded, or encoding is refused', () => {
  fc.assert(
    fc.property(unusualText, fc.option(unusualText, { nil: undefined }), (data, event) => {
      let bytes: Buffer;
      try {
        bytes = encodeFrame(event === undefined ? { id: 'e-1', data } : { id: 'e-1', event, data });
      } catch (error) {
        return error instanceof TypeError;
      }
      const [parsedEvent, ...others] = parseEvents(bytes);
      assert.deepEqual(others, []);
      assert.equal(parsedEvent?.data, data.replace(/\r\n|\r/g, '\n'));
      assert.equal(parsedEvent?.event, event);
      assert.equal(parsedEvent?.id, 'e-1');
      return true;
    }),
    { numRuns: 2000 },
  );
});

test('a control event has an id only if one is given', () => {
  assert.equal(parseEvents(controlFrame('count', 3).bytes)[0]?.id, undefined);
  assert.equal(parseEvents(controlFrame('stream.open', 3, { id: 'e-1' }).bytes)[0]?.id, 'e-1');
});

test('the retry line of a frame comes first and its id line last', () => {
  const bytes = encodeFrame({ id: 'e-1', event: 'note', data: 'x', retryMs: 1500.7 });

  assert.equal(bytes.toString(), 'retry: 1500\nevent: note\ndata: x\nid: e-1\n\n');
  assert.equal(encodeFrame({ data: 'x', retryMs: -1 }).toString(), 'retry: 0\ndata: x\n\n');
});
