import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Failure } from '../errors.js';
import { parsePublishRequest } from './publish-request.js';

const limits = { eventBytesMax: 64 };
const now = 1_800_000_000_000;
/** Parses a body with this value. Undefined means an empty body. */
const parse = (value: unknown) => {
  const body = value === undefined ? undefined : { value, text: JSON.stringify(value) };
  return parsePublishRequest(body, limits, now);
};

function getFailure(body: unknown): Failure {
  try {
    parse(body);
  } catch (error) {
    assert.ok(error instanceof Failure);
    return error;
  }
  assert.fail('The request was not refused');
}

test('an event has a topic only if it is addressed to exactly one topic and to nothing else', () => {
  const parseTopic = (to: unknown) => parse({ to, data: 1 })[0]?.topic;

  assert.equal(parseTopic({ topics: ['orders:17'] }), 'orders:17');
  assert.equal(parseTopic({ topics: ['orders:17', 'orders:17'] }), 'orders:17');
  assert.equal(parseTopic({ topics: ['orders:17', 'orders:18'] }), undefined);
  assert.equal(parseTopic({ topics: ['orders:17'], users: ['1'] }), undefined);
  assert.equal(parseTopic({ users: ['t:1'] }), undefined);
  assert.equal(parseTopic('all'), undefined);
});

test('a user id is 1 to 255 printable ASCII characters without space and "",\\*', () => {
  const valid = [
    '1',
    'auth0|5f7c8ec7c33c6c004bbafe82',
    'ada@example.com',
    'https://issuer.example.com/users/1?a=b#c',
    '0b5e6f3e-6f0b-4c7e-9d43-0f6a2f9d8a11',
    'x'.repeat(255),
  ];
  const invalid = [
    '',
    'x'.repeat(256),
    'a b',
    'a"',
    'a,b',
    'a\\',
    'a*',
    'ü',
    '\u0000',
    '\u007f',
    'a\n',
  ];

  assert.deepEqual(
    parse({ to: { users: valid }, data: 1 })[0]?.audiences,
    valid.map((id) => `u:${id}`),
  );
  for (const id of invalid)
    assert.deepEqual(getFailure({ to: { users: [id] }, data: 1 }).info, { field: 'to.users' }, id);
});

test('string data is sent unchanged, and other data as JSON', () => {
  const data = ['text', '', 0, null, false, [1], { a: 'ü' }];

  const events = parse(data.map((item) => ({ to: 'all', data: item })));

  const texts = events.map((event) => event.data);
  assert.deepEqual(texts, ['text', '', '0', 'null', 'false', '[1]', '{"a":"ü"}']);
});

test('JSON data keeps the digits of its numbers and its duplicate members', () => {
  for (const data of ['12345678901234567890', '1e400', '{"a":1.0,"a":-0}']) {
    const texts = [`{"to":"all","data":${data}}`, `[{"to":"all","data": ${data} }]`];
    for (const text of texts) {
      const [event] = parsePublishRequest({ value: JSON.parse(text), text }, limits, now);
      assert.equal(event?.data, data);
    }
  }
});

test('an event can have a lifetime and be volatile at the same time', () => {
  const [event] = parse({ to: 'all', data: 1, expiresIn: 5000, volatile: true });

  assert.equal(event?.expiresAt, now + 5000);
  assert.equal(event?.volatile, true);
});

test('the data limit counts UTF-8 bytes', () => {
  assert.equal(parse({ to: 'all', data: 'ü'.repeat(32) }).length, 1);
  assert.equal(getFailure({ to: 'all', data: 'ü'.repeat(33) }).name, 'payload_too_large');
});

test('a request has at most 1000 events, and an event at most 1000 users', () => {
  const event = { to: 'all', data: 1 };
  const users = Array.from({ length: 1000 }, (_, id) => String(id));

  assert.equal(parse(Array.from({ length: 1000 }, () => event)).length, 1000);
  assert.equal(getFailure(Array.from({ length: 1001 }, () => event)).name, 'invalid_request');
  assert.equal(parse({ to: { users }, data: 1 })[0]?.audiences.length, 1000);
  assert.equal(getFailure({ to: { users: [...users, 'x'] }, data: 1 }).info?.['field'], 'to.users');
});

test('a request has at most 10,000 recipients', () => {
  const users = Array.from({ length: 1000 }, (_, id) => String(id));
  const event = { to: { users }, data: 1 };

  assert.equal(parse(Array.from({ length: 10 }, () => event)).length, 10);
  assert.equal(getFailure(Array.from({ length: 11 }, () => event)).name, 'invalid_request');
});

test('with a user prefix, an event can be addressed only to topics, and to users whose ids begin with it', () => {
  const to = (recipients: unknown) => ({ to: recipients, data: 1 });
  const parseLimited = (body: unknown, userPrefix: string | undefined) =>
    parsePublishRequest(
      { value: body, text: JSON.stringify(body) },
      { ...limits, userPrefix },
      now,
    );
  const allowed = to({ users: ['shop:1', 'shop:'], topics: ['orders:17'] });
  const refused = [
    'all',
    { sessions: ['shop:1'] },
    { users: ['shop:1'], sessions: ['shop:1'] },
    { users: ['1'], topics: ['shop:1'] },
    { users: ['1'] },
    { users: ['shop'] },
    { users: ['Shop:1'] },
    { users: ['u:shop:1'] },
    { users: ['shop:1', 'shop:2', 'store:1'] },
  ].map(to);

  const audiences = ['u:shop:1', 'u:shop:', 't:orders:17'];
  assert.deepEqual(parseLimited(allowed, 'shop:')[0]?.audiences, audiences);
  assert.ok(parseLimited(to({ topics: ['orders:17'] }), 'shop:'));
  for (const body of refused) {
    const info = { field: 'to', userPrefix: 'shop:' };
    const expected = { name: 'user_not_allowed', status: 403 };
    assert.throws(() => parseLimited(body, 'shop:'), { ...expected, info });
    assert.throws(() => parseLimited([allowed, body], 'shop:'), {
      ...expected,
      info: { ...info, index: 1 },
    });
    for (const userPrefix of ['', undefined]) assert.ok(parseLimited(body, userPrefix));
  }
});

test('with patterns of topics, an event can be addressed only to topics that a pattern matches', () => {
  const parseLimited = (to: unknown, topicPatterns: readonly string[]) => {
    const body = { to, data: 1 };
    const keyLimits = { ...limits, userPrefix: 'shop:', topicPatterns };
    return parsePublishRequest({ value: body, text: JSON.stringify(body) }, keyLimits, now);
  };
  const patterns = ['orders:*', 'news'];
  const topics = ['orders:17', 'orders:', 'orders', 'Orders:1', 'news', 'news:1'];

  assert.ok(parseLimited({ topics: ['orders:17', 'orders:', 'news'] }, patterns));
  assert.ok(parseLimited({ topics }, ['*']));
  assert.throws(() => parseLimited({ topics }, patterns), {
    ...{ name: 'topic_not_allowed', status: 403 },
    info: { field: 'to.topics', topics: ['orders', 'Orders:1', 'news:1'] },
  });
  assert.throws(() => parseLimited({ topics: ['news'] }, []), { name: 'topic_not_allowed' });
  for (const to of ['all', { users: ['shop:1'] }, { sessions: ['a'], topics: ['news'] }]) {
    assert.throws(() => parseLimited(to, ['*']), {
      ...{ name: 'topic_not_allowed', status: 403, info: { field: 'to', topics: [] } },
      message: /only topics, because the API key is limited to topics$/,
    });
  }
});

// [description, body, field in the failure]
const refusals: readonly [string, unknown, string][] = [
  ['no body', undefined, 'event'],
  ['null', null, 'event'],
  ['a string', 'x', 'event'],
  ['an unknown field', { to: 'all', data: 1, colour: 'red' }, 'colour'],
  ['an unknown field that is no word', { to: 'all', data: 1, 'a\n': 1 }, 'event'],
  ['a user id alone', { to: '1', data: 1 }, 'to'],
  ['no users', { to: { users: [] }, data: 1 }, 'to.users'],
  ['a reserved type', { to: 'all', data: 1, type: 'stream.open' }, 'type'],
  ['a type with a line break', { to: 'all', data: 1, type: 'a\nid: 1' }, 'type'],
  ['an empty type', { to: 'all', data: 1, type: '' }, 'type'],
  ['a type that is not a string', { to: 'all', data: 1, type: 7 }, 'type'],
  ['volatile that is not a boolean', { to: 'all', data: 1, volatile: 'yes' }, 'volatile'],
  ['a lifetime of 0', { to: 'all', data: 1, expiresIn: 0 }, 'expiresIn'],
  ['a lifetime that is a string', { to: 'all', data: 1, expiresIn: '5' }, 'expiresIn'],
  ['a lifetime of two years', { to: 'all', data: 1, expiresIn: 7e10 }, 'expiresIn'],
  ['NUL in the data', { to: 'all', data: 'a\0' }, 'data'],
  ['a lone surrogate in the data', { to: 'all', data: '\ud800' }, 'data'],
];

for (const [what, body, field] of refusals) {
  test(`a publish request with ${what} is refused with the field "${field}"`, () => {
    assert.equal(getFailure(body).info?.['field'], field);
  });
}

test('a request without required fields is refused with a list of all missing fields', () => {
  const failure = getFailure({ type: 'x' });

  assert.equal(failure.name, 'missing_required_parameter');
  assert.deepEqual(failure.info?.['body'], ['to', 'data']);
});

test('an invalid event of an array is reported with its index', () => {
  const failure = getFailure([
    { to: 'all', data: 1 },
    { to: 'nobody', data: 1 },
  ]);

  assert.equal(failure.info?.['index'], 1);
  assert.match(failure.message, /\(event at index 1\)$/);
});
