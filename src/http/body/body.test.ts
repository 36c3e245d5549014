import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ask } from '../../../test/support/clients/ask.js';
import { protocols, type RequestParts } from '../../../test/support/clients/exchange.js';
import { startHttp } from '../../../test/support/servers/http-server.js';
import { json } from '../reply.js';
import { route } from '../router.js';
import { parseBody } from './body.js';

const echo =
  (options = {}) =>
  async (exchange: { body(options?: object): Promise<unknown> }) => {
    const body = await exchange.body(options);
    return json(200, { body: body ?? '(none)' });
  };
const routes = [
  route('POST', '/json', echo()),
  route('POST', '/form', echo({ isFormAllowed: true })),
  route('POST', '/small', echo({ bytesMax: 4 })),
  route('POST', '/large', echo({ bytesMax: 100_000 })),
];

const jsonType = 'application/json';
const formType = 'application/x-www-form-urlencoded';
type Post = RequestParts & { readonly path: string };
const post = (path: string, type: string | undefined, body?: string | Buffer): Post => ({
  path,
  headers: type === undefined ? {} : { 'content-type': type },
  ...(body === undefined ? {} : { body }),
});
const nested = (depth: number) => '['.repeat(depth) + ']'.repeat(depth);

// [description, request, parsed body]
const acceptedCases: readonly (readonly [string, Post, unknown])[] = [
  ['JSON', post('/json', jsonType, '{"a":[1,"é"]}'), { a: [1, 'é'] }],
  ['JSON with a charset', post('/json', 'Application/JSON; charset=utf-8', '1'), 1],
  ['JSON after a byte order mark', post('/json', jsonType, '\ufeff1'), 1],
  ['null', post('/json', jsonType, 'null'), '(none)'],
  ['an empty body', post('/json', undefined), '(none)'],
  ['an empty body of any type', post('/json', 'text/plain', ''), '(none)'],
  ['JSON where forms are accepted', post('/form', jsonType, '{"a":1}'), { a: 1 }],
  [
    'a form',
    post('/form', formType, 'a=1&b=%C3%A9+x&c&d=1=2&'),
    { a: '1', b: 'é x', c: '', d: '1=2' },
  ],
  [
    'a body of exactly the maximum size',
    post('/json', jsonType, `"${'x'.repeat(8190)}"`),
    'x'.repeat(8190),
  ],
  ['a body of exactly the maximum size of its route', post('/small', jsonType, '1234'), 1234],
  [
    'a body larger than the HTTP/2 window',
    post('/large', jsonType, `"${'x'.repeat(99_998)}"`),
    'x'.repeat(99_998),
  ],
  [
    'a string with many brackets',
    post('/json', jsonType, `"\\"${'['.repeat(50)}"`),
    `"${'['.repeat(50)}`,
  ],
  [
    'JSON of exactly the maximum depth, twice in an array',
    post('/json', jsonType, `[${nested(31)},${nested(31)}]`),
    JSON.parse(`[${nested(31)},${nested(31)}]`),
  ],
];

// [description, request, status, failure name]
const refusedCases: readonly (readonly [string, Post, number, string])[] = [
  ['malformed JSON', post('/json', jsonType, '{"a":'), 400, 'invalid_request'],
  [
    'a body that is not UTF-8',
    post('/json', jsonType, Buffer.of(0x22, 0xff, 0x22)),
    400,
    'invalid_request',
  ],
  [
    'JSON in UTF-16',
    post('/json', jsonType, Buffer.from('"a"', 'utf16le')),
    400,
    'invalid_request',
  ],
  [
    'a charset that is not UTF-8',
    post('/json', 'application/json; charset=utf-16', '1'),
    415,
    'unsupported_media_type',
  ],
  [
    'a body with a content-encoding',
    {
      ...post('/json', jsonType, '1'),
      headers: { 'content-type': jsonType, 'content-encoding': 'gzip' },
    },
    415,
    'unsupported_media_type',
  ],
  ['a form that is not UTF-8', post('/form', formType, 'a=%ff'), 400, 'invalid_request'],
  ['a form with an incomplete escape', post('/form', formType, 'a=%4'), 400, 'invalid_request'],
  ['a form with a duplicate field', post('/form', formType, 'a=1&b=2&a=1'), 400, 'invalid_request'],
  ['JSON nested one level too deep', post('/json', jsonType, nested(33)), 400, 'invalid_request'],
  [
    'JSON nested too deep after a string that ends in a backslash',
    post('/json', jsonType, `["\\\\",${nested(32)}]`),
    400,
    'invalid_request',
  ],
  [
    'JSON nested 90,000 levels deep',
    post('/large', jsonType, '['.repeat(90_000)),
    400,
    'invalid_request',
  ],
  ['a body without content-type', post('/json', undefined, '1'), 415, 'unsupported_media_type'],
  ['a body of another type', post('/json', 'text/json', '1'), 415, 'unsupported_media_type'],
  [
    'a form where forms are not accepted',
    post('/json', formType, 'a=1'),
    415,
    'unsupported_media_type',
  ],
  [
    'a body of another type where forms are accepted',
    post('/form', 'multipart/form-data', 'a=1'),
    415,
    'unsupported_media_type',
  ],
  [
    'a body one byte over the limit',
    post('/json', jsonType, `"${'x'.repeat(8191)}"`),
    413,
    'payload_too_large',
  ],
  [
    'a body one byte over the limit of its route',
    post('/small', jsonType, '12345'),
    413,
    'payload_too_large',
  ],
  [
    'a body megabytes over the limit',
    post('/small', jsonType, '1'.repeat(4_000_000)),
    413,
    'payload_too_large',
  ],
];

for (const protocol of protocols) {
  for (const [what, { path, ...parts }, body] of acceptedCases) {
    test(`${what} is read over ${protocol}`, async (t) => {
      const { port } = await startHttp(t, routes);

      const answer = await ask(protocol, port, 'POST', path, parts);

      assert.equal(answer.status, 200);
      assert.deepEqual(answer.body['body'], body);
    });
  }

  for (const [what, { path, ...parts }, status, name] of refusedCases) {
    test(`${what} is refused with ${status} ${name} over ${protocol}`, async (t) => {
      const { port } = await startHttp(t, routes);

      const answer = await ask(protocol, port, 'POST', path, parts);

      assert.deepEqual([answer.status, answer.body['name']], [status, name]);
      const accepted = { '/json': jsonType, '/form': `${jsonType}, ${formType}` }[path];
      const isTypeRefused = status === 415 && parts.headers?.['content-encoding'] === undefined;
      assert.equal(answer.headers['accept-post'], isTypeRefused ? accepted : undefined);
    });
  }

  test(`reading a body twice over ${protocol} is a defect and does not hang`, async (t) => {
    const twice = route('POST', '/twice', async (exchange) => {
      await exchange.body();
      await exchange.body();
      return json(200, {});
    });
    const { port } = await startHttp(t, [twice]);

    assert.equal((await ask(protocol, port, 'POST', '/twice', { json: 1 })).status, 500);
  });
}

test('__proto__ is parsed as an ordinary field', () => {
  const parse = (text: string, type: string) =>
    parseBody(Buffer.from(text), { type, isFormAllowed: true, depthMax: 32 }) as object;

  const bodies = [parse('{"__proto__":{"a":1}}', jsonType), parse('__proto__=1', formType)];

  for (const body of bodies) {
    assert.equal(Object.getPrototypeOf(body), Object.prototype);
    assert.deepEqual(Object.keys(body), ['__proto__']);
  }
});
