import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Failure } from '../errors.js';
import { internalFailure, toProblemReply } from './problem.js';

const context = { requestId: 'request-1', accept: undefined, challenge: 'Bearer realm="test"' };
const parseReply = (failure: Failure, accept?: string) => {
  const { status, headers, body } = toProblemReply(failure, { ...context, accept });
  return { status, headers, body: JSON.parse(String(body)) };
};

test('a failure is rendered with name, message, status and info, and as a problem document', () => {
  const info = { body: ['username'] };
  const failure = new Failure('missing_required_parameter', 'Cannot read body: needs username', {
    info,
  });

  const { status, headers, body } = parseReply(failure);

  assert.equal(status, 400);
  assert.equal(headers['content-type'], 'application/json; charset=utf-8');
  assert.equal(headers['cache-control'], 'no-store');
  assert.deepEqual(body, {
    name: 'missing_required_parameter',
    message: 'Cannot read body: needs username',
    status: 400,
    info,
    type: 'about:blank',
    title: 'Bad Request',
    detail: 'Cannot read body: needs username',
    instance: 'request-1',
  });
});

test('the problem document of a failure without info has no member info', () => {
  assert.ok(!('info' in parseReply(new Failure('not_found', 'Cannot find this')).body));
});

// [Accept, whether the reply is a problem document]
const accepts: readonly (readonly [string | undefined, boolean])[] = [
  [undefined, false],
  ['', false],
  ['*/*', false],
  ['application/*', false],
  ['application/json', false],
  ['application/problem+json', true],
  ['Application/Problem+JSON', true],
  ['application/json;q=0.5, application/problem+json;q=0.9', true],
  ['application/problem+json; q=0', false],
  ['application/problem+json;q=0.000, */*', false],
  ['application/problem+jsonp', false],
  ['text/plain;x="application/problem+json"', false],
];

for (const [accept, isProblem] of accepts) {
  test(`Accept: ${accept} selects ${isProblem ? 'a problem document' : 'JSON'}`, () => {
    const { headers } = parseReply(new Failure('not_found', 'Cannot find this'), accept);

    const media = isProblem ? 'application/problem+json' : 'application/json';
    assert.equal(headers['content-type'], `${media}; charset=utf-8`);
  });
}

test('every 401 has a WWW-Authenticate header: that of the failure, or the default', () => {
  const challenge = { headers: { 'www-authenticate': 'Bearer error="invalid_token"' } };

  const answers = [
    parseReply(new Failure('bad_credentials', 'Cannot sign in')),
    parseReply(new Failure('invalid_token', 'Cannot authenticate', challenge)),
  ];

  const challenges = answers.map(({ headers }) => headers['www-authenticate']);
  assert.deepEqual(challenges, ['Bearer realm="test"', 'Bearer error="invalid_token"']);
});

test('every 429 and 503 has a Retry-After header', () => {
  const waits = [
    parseReply(new Failure('too_many_requests', 'Cannot do this now')),
    parseReply(new Failure('service_unavailable', 'Cannot do this now', { retryAfterMs: 2500 })),
    parseReply(new Failure('not_found', 'Cannot find this')),
  ].map(({ headers }) => headers['retry-after']);

  assert.deepEqual(waits, ['1', '3', undefined]);
});

test('the reply for a defect has no details', () => {
  const { status, body } = parseReply(internalFailure());

  assert.equal(status, 500);
  assert.equal(body.name, 'internal_server');
  assert.ok(!('info' in body));
});
