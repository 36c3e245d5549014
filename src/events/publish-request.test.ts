import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Failure } from '../errors.js';
import { parsePublishRequest } from './publish-request.js';

const limits = { eventBytesMax: 64 };
const now = 1_800_000_000_000;
const parse = (body: unknown) => parsePublishRequest(body, limits, now);

function getFailure(body: unknown): Failure {
  try {
    parse(body);
  } catch (error) {
    assert.ok(error instanceof Failure);
    return error;
  }
  assert.fail('was not refused');
}

test('an event is for users, for sessions, or for all', () => {
  assert.deepEqual(parse({ to: { users: ['1', '2', '1'] }, data: 1 })[0]?.audiences, [
    'u:1',
    'u:2',
  ]);
  assert.deepEqual(parse({ to: { sessions: ['ab'] }, data: 1 })[0]?.audiences, ['s:ab']);
  assert.deepEqual(parse({ to: 'all', data: 1 })[0]?.audiences, ['all']);
});

test('a string goes out as it is, anything else as JSON', () => {
  const data = ['text', '', 0, null, false, [1], { a: 'ü' }];

  const events = parse(data.map((item) => ({ to: 'all', data: item })));

  const texts = events.map((event) => event.data);
  assert.deepEqual(texts, ['text', '', '0', 'null', 'false', '[1]', '{"a":"ü"}']);
});

test('an event may expire, and may be volatile', () => {
  const [event] = parse({ to: 'all', data: 1, expiresIn: 5000, volatile: true });

  assert.equal(event?.expiresAt, now + 5000);
  assert.equal(event?.volatile, true);
});

test('data is measured as UTF-8, at its limit and one over', () => {
  assert.equal(parse({ to: 'all', data: 'ü'.repeat(32) }).length, 1);
  assert.equal(getFailure({ to: 'all', data: 'ü'.repeat(33) }).name, 'payload_too_large');
});

test('1000 events and 1000 users are taken, one more is not', () => {
  const event = { to: 'all', data: 1 };
  const users = Array.from({ length: 1000 }, (_, id) => String(id));

  assert.equal(parse(Array.from({ length: 1000 }, () => event)).length, 1000);
  assert.equal(getFailure(Array.from({ length: 1001 }, () => event)).name, 'invalid_request');
  assert.equal(parse({ to: { users }, data: 1 })[0]?.audiences.length, 1000);
  assert.equal(getFailure({ to: { users: [...users, 'x'] }, data: 1 }).info?.['field'], 'to');
});

test('10,000 addresses in one request are taken, more are not', () => {
  const users = Array.from({ length: 1000 }, (_, id) => String(id));
  const event = { to: { users }, data: 1 };

  assert.equal(parse(Array.from({ length: 10 }, () => event)).length, 10);
  assert.equal(getFailure(Array.from({ length: 11 }, () => event)).name, 'invalid_request');
});

// [what is wrong, the body, the field named]
const refusals: readonly [string, unknown, string][] = [
  ['no body', undefined, 'event'],
  ['null', null, 'event'],
  ['a string', 'x', 'event'],
  ['an unknown field', { to: 'all', data: 1, colour: 'red' }, 'event'],
  ['to: a user id alone', { to: '1', data: 1 }, 'to'],
  ['to: no users', { to: { users: [] }, data: 1 }, 'to'],
  ['to: users that is no list', { to: { users: '1' }, data: 1 }, 'to'],
  ['to: a number for an id', { to: { users: [1] }, data: 1 }, 'to'],
  ['to: an id with a line break', { to: { users: ['1\n'] }, data: 1 }, 'to'],
  ['to: users and sessions', { to: { users: ['1'], sessions: ['a'] }, data: 1 }, 'to'],
  ['to: an unknown kind', { to: { groups: ['1'] }, data: 1 }, 'to'],
  ['a reserved type', { to: 'all', data: 1, type: 'stream.open' }, 'type'],
  ['a type that breaks its line', { to: 'all', data: 1, type: 'a\nid: 1' }, 'type'],
  ['an empty type', { to: 'all', data: 1, type: '' }, 'type'],
  ['a type that is no string', { to: 'all', data: 1, type: 7 }, 'type'],
  ['volatile that is no boolean', { to: 'all', data: 1, volatile: 'yes' }, 'volatile'],
  ['a lifetime of nothing', { to: 'all', data: 1, expiresIn: 0 }, 'expiresIn'],
  ['a lifetime of a text', { to: 'all', data: 1, expiresIn: '5' }, 'expiresIn'],
  ['a lifetime of two years', { to: 'all', data: 1, expiresIn: 7e10 }, 'expiresIn'],
  ['NUL in the data', { to: 'all', data: 'a\0' }, 'data'],
  ['half a surrogate pair in the data', { to: 'all', data: '\ud800' }, 'data'],
];

for (const [what, body, field] of refusals) {
  test(`${what} is refused, naming ${field}`, () => {
    assert.equal(getFailure(body).info?.['field'], field);
  });
}

test('missing fields are named', () => {
  const failure = getFailure({ type: 'x' });

  assert.equal(failure.name, 'missing_required_parameter');
  assert.deepEqual(failure.info?.['body'], ['to', 'data']);
});

test('in an array the bad event is named by its index', () => {
  const failure = getFailure([
    { to: 'all', data: 1 },
    { to: 'nobody', data: 1 },
  ]);

  assert.equal(failure.info?.['index'], 1);
  assert.match(failure.message, /\(event 1\)$/);
});
