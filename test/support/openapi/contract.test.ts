import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Contract, type ReceivedResponse } from './contract.js';
import { readDocument } from './document.js';
import type { SentRequest } from './request-check.js';

const contract = new Contract(readDocument());

const everyHeader = {
  'x-request-id': '0b7c3f4e-7b5b',
  'x-content-type-options': 'nosniff',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'referrer-policy': 'no-referrer',
  'x-frame-options': 'DENY',
  'cache-control': 'no-store',
  'cross-origin-resource-policy': 'same-origin',
};
const json = { 'content-type': 'application/json; charset=utf-8' };
const streamHeaders = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache, no-store, no-transform',
};
const eventStream = { ...streamHeaders, 'x-accel-buffering': 'no' };

function problem(status: number, more: object = {}): string {
  const fields = { name: 'invalid_request', message: 'm', status, ...more };
  return JSON.stringify({
    ...fields,
    ...{ type: 'about:blank', title: 't', detail: 'm', instance: '0b7c3f4e' },
  });
}

const live: SentRequest = { method: 'GET', url: '/health/live', headers: {}, body: '' };
const ofJson = { ...everyHeader, ...json };
const alive: ReceivedResponse = { status: 200, headers: ofJson, body: '{"status":"ok"}' };
const publish: SentRequest = {
  method: 'POST',
  url: '/events',
  headers: { ...json, authorization: 'Bearer k', 'idempotency-key': 'a' },
  body: '{"to":"all","data":1}',
};
const published: ReceivedResponse = {
  status: 201,
  headers: { ...everyHeader, ...json },
  body: '{"id":"e-1"}',
};
const stream: SentRequest = { method: 'GET', url: '/stream/live/abc', headers: {}, body: '' };
const opened: ReceivedResponse = { status: 200, headers: { ...everyHeader, ...eventStream } };
const ndjson = { ...publish.headers, 'content-type': 'application/x-ndjson' };
const linesPublished = { ...published, body: '{"published":2,"lastId":null}' };
const lines: SentRequest = { ...publish, headers: ndjson, body: '{"to":"all","data":1}\n\n' };
const refused = { status: 400, headers: ofJson, body: problem(400) };
const options = { status: 204, headers: { ...everyHeader, allow: 'GET, HEAD, OPTIONS' }, body: '' };

// [what, request, response]
const documented: readonly (readonly [string, SentRequest, ReceivedResponse])[] = [
  ['a response', live, alive],
  ['headers that Node adds', live, { ...alive, headers: { ...ofJson, date: 'x' } }],
  ['a HEAD request', { ...live, method: 'HEAD' }, { ...alive, body: '' }],
  ['an OPTIONS request', { ...live, method: 'OPTIONS' }, options],
  ['an unknown path', { ...live, url: '/no' }, { ...refused, status: 404, body: problem(404) }],
  [
    'an unknown method',
    { ...live, method: 'BREW' },
    { ...refused, status: 501, body: problem(501) },
  ],
  [
    'a number as query parameter',
    { ...live, url: '/v1/streams?limit=1000&after=' },
    { ...alive, body: '{"items":[],"more":false}' },
  ],
  ['an event', publish, published],
  ['JSON lines', lines, linesPublished],
  ['a response that is not complete', publish, { ...published, body: undefined }],
  ['a stream', { ...stream, url: '/stream/live/abc?lastEventId=e-1' }, opened],
  ['a wrong request that is refused', { ...publish, url: '/events?a=1', body: '{' }, refused],
  [
    'an error with details',
    publish,
    { ...refused, body: problem(400, { info: { field: 'to', index: 1 } }) },
  ],
];

for (const [what, request, response] of documented) {
  test(`${what} that matches the document is accepted`, () => {
    assert.deepEqual(contract.check(request, response), []);
  });
}

// [what, request, response, problem]
const undocumented: readonly (readonly [string, SentRequest, ReceivedResponse, string])[] = [
  [
    'a route',
    { ...live, url: '/v1/new?a=1' },
    alive,
    'GET /v1/new: the route, which returned 200, is not documented',
  ],
  [
    'a path that is known to the server only',
    { ...live, url: '/v1/new' },
    { ...refused, status: 405, headers: { ...ofJson, allow: 'POST' }, body: problem(405) },
    'GET /v1/new: the route, which returned 405, is not documented',
  ],
  [
    'a method',
    { ...live, method: 'POST' },
    alive,
    'POST /health/live: the route, which returned 200, is not documented',
  ],
  [
    'HEAD of a stream',
    { ...stream, method: 'HEAD' },
    opened,
    'HEAD /stream/live/abc: the route, which returned 200, is not documented',
  ],
  ['a status', live, { ...alive, status: 202 }, 'GET /health/live: status 202 is not documented'],
  [
    'a member of a response',
    live,
    { ...alive, body: '{"status":"ok","more":1}' },
    'GET /health/live: status 200: the value has the undocumented member "more"',
  ],
  [
    'a value of a response',
    live,
    { ...alive, body: '{"status":"up"}' },
    'GET /health/live: status 200: /status must be equal to constant "ok"',
  ],
  [
    'a missing member of a response',
    live,
    { ...alive, body: '{}' },
    "GET /health/live: status 200: the value must have required property 'status'",
  ],
  [
    'a body that is not JSON',
    live,
    { ...alive, body: 'ok' },
    'GET /health/live: status 200: the body is not JSON',
  ],
  [
    'a content-type',
    live,
    { ...alive, headers: { ...ofJson, 'content-type': 'text/html' } },
    'GET /health/live: status 200: content-type text/html is not documented',
  ],
  [
    'a body where there is none',
    { ...live, method: 'OPTIONS' },
    { ...options, body: 'x' },
    'OPTIONS /health/live: status 204: a body is not documented',
  ],
  [
    'a header of a response',
    live,
    { ...alive, headers: { ...ofJson, 'x-more': '1' } },
    'GET /health/live: status 200: header x-more is not documented',
  ],
  [
    'a value of a header',
    live,
    { ...alive, headers: { ...ofJson, 'cache-control': 'public' } },
    'GET /health/live: status 200: header cache-control: the value must be equal to constant "no-store"',
  ],
  [
    'a missing header of the route',
    stream,
    { ...opened, headers: { ...everyHeader, ...streamHeaders } },
    'GET /stream/live/{token}: status 200: header x-accel-buffering is missing',
  ],
  [
    'a missing header of every response',
    publish,
    { ...published, headers: { ...everyHeader, ...json, 'x-request-id': 'too short'.slice(0, 3) } },
    'POST /events: status 201: header x-request-id: the value must match pattern "^[A-Za-z0-9_-]{8,64}$"',
  ],
  [
    'the name of an error',
    publish,
    { ...refused, body: problem(400, { name: 'new' }) },
    'POST /events: status 400: /name must be equal to one of the allowed values',
  ],
  [
    'a detail of an error',
    publish,
    { ...refused, body: problem(400, { info: { more: 1 } }) },
    'POST /events: status 400: /info has the undocumented member "more"',
  ],
  [
    'a member of an accepted request',
    { ...publish, url: '/login', body: '{"username":"a","password":"b","more":1}', headers: json },
    {
      status: 200,
      headers: { ...ofJson, pragma: 'no-cache' },
      body: JSON.stringify({
        ...{ accessToken: 'a', tokenType: 'Bearer', accessTokenExpiresIn: 1 },
        ...{ refreshToken: 'r', refreshTokenExpiresIn: 1 },
      }),
    },
    'POST /login: request: the value has the undocumented member "more"',
  ],
  [
    'a line of an accepted request',
    { ...lines, body: '{"to":"all","data":1}\n{"to":"all"}' },
    linesPublished,
    "POST /events: request: the value must have required property 'data'",
  ],
  [
    'a content-type of an accepted request',
    { ...publish, headers: { ...publish.headers, 'content-type': 'text/plain' } },
    published,
    'POST /events: request: content-type text/plain is not documented',
  ],
  [
    'a missing body of an accepted request',
    { ...publish, body: '' },
    published,
    'POST /events: request: the body is missing',
  ],
  [
    'a body of an accepted request without one',
    { ...live, body: 'x' },
    alive,
    'GET /health/live: request: a body is not documented',
  ],
  [
    'a query parameter of an accepted request',
    { ...stream, url: '/stream/live?after=1' },
    opened,
    'GET /stream/live: request: query parameter after is not documented',
  ],
  [
    'a header of an accepted request',
    { ...publish, headers: { ...publish.headers, 'X-Topic': 'a' } },
    published,
    'POST /events: request: header x-topic is not documented',
  ],
  [
    'a number of a query parameter of an accepted request',
    { ...live, url: '/v1/streams?limit=1001' },
    { ...alive, body: '{"items":[],"more":false}' },
    'GET /v1/streams: request: query parameter limit: the value must be <= 1000',
  ],
  [
    'a text instead of a number of an accepted request',
    { ...live, url: '/v1/streams?limit=1e2' },
    { ...alive, body: '{"items":[],"more":false}' },
    'GET /v1/streams: request: query parameter limit: the value must be integer',
  ],
  [
    'a value of a header of an accepted request',
    { ...publish, headers: { ...publish.headers, 'idempotency-key': 'ä' } },
    published,
    'POST /events: request: header parameter Idempotency-Key: the value must match pattern "^[ -~]{1,255}$"',
  ],
];

for (const [what, request, response, expected] of undocumented) {
  test(`${what} that is not in the document is reported`, () => {
    const problems = contract.check(request, response);

    assert.equal(problems.length, 1, problems.join('\n'));
    assert.ok(problems[0]?.startsWith(expected), problems[0]);
  });
}

test("data of Herald's events that is not in the document is reported", () => {
  const closing = { code: 'draining', reconnect: true, renew: false };

  assert.deepEqual(contract.checkEvent('stream.close', JSON.stringify(closing)), []);
  assert.deepEqual(contract.checkEvent('count', '7'), []);
  assert.deepEqual(contract.checkEvent('stream.new', '{}'), ['event stream.new is not documented']);
  assert.deepEqual(contract.checkEvent('count', '"7"'), ['event count: the value must be integer']);
  assert.deepEqual(contract.checkEvent('stream.close', JSON.stringify({ ...closing, why: 1 })), [
    'event stream.close: the value has the undocumented member "why"',
  ]);
});
