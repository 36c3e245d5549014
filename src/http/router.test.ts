import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Failure, type FailureName } from '../errors.js';
import { empty } from './reply.js';
import { Router, route, serverRoute, streamRoute } from './router.js';

const handle = () => empty(204);
const router = new Router([
  route('GET', '/hello', handle),
  route('POST', '/hello', handle),
  streamRoute('/stream/live/:token', handle),
  route('GET', '/stream/live/fixed', handle),
  route('DELETE', '/users/:user/keys/:key', handle),
  route('ALL', '/anything', handle),
]);

// [method, path, pattern, params]
const matches: readonly (readonly [string, string, string, Record<string, string>])[] = [
  ['GET', '/hello', '/hello', {}],
  ['HEAD', '/hello', '/hello', {}],
  ['POST', '/hello', '/hello', {}],
  ['GET', '/stream/live/abc', '/stream/live/:token', { token: 'abc' }],
  ['GET', '/stream/live/fixed', '/stream/live/fixed', {}],
  ['GET', '/stream/live/a%2Fb', '/stream/live/:token', { token: 'a/b' }],
  ['GET', '/stream/live/%C3%A9', '/stream/live/:token', { token: 'é' }],
  ['DELETE', '/users/1/keys/2', '/users/:user/keys/:key', { user: '1', key: '2' }],
  ['PATCH', '/anything', '/anything', {}],
  ['HEAD', '/anything', '/anything', {}],
  ['HEAD', '/stream/live/fixed', '/stream/live/fixed', {}],
];

for (const [method, path, pattern, params] of matches) {
  test(`${method} ${path} matches ${pattern}`, () => {
    const match = router.find(method, path);

    assert.equal(match.route.path, pattern);
    assert.deepEqual(match.params, params);
  });
}

// [method, path, failure, Allow]
const refusedCases: readonly (readonly [string, string, FailureName, string | undefined])[] = [
  ['GET', '/', 'not_found', undefined],
  ['GET', '/Hello', 'not_found', undefined],
  ['GET', '/hello/', 'not_found', undefined],
  ['GET', '//hello', 'not_found', undefined],
  ['GET', '/__proto__', 'not_found', undefined],
  ['GET', '/stream/live/', 'not_found', undefined],
  ['GET', '/stream/live/a/b', 'not_found', undefined],
  ['GET', '/stream/live/%', 'invalid_request', undefined],
  ['GET', '/stream/live/%ff', 'invalid_request', undefined],
  ['DELETE', '/hello', 'method_not_allowed', 'GET, POST, HEAD, OPTIONS'],
  ['HEAD', '/stream/live/abc', 'method_not_allowed', 'GET, OPTIONS'],
  ['GET', '/users/1/keys/2', 'method_not_allowed', 'DELETE, OPTIONS'],
];

for (const [method, path, name, allow] of refusedCases) {
  test(`${method} ${path} is refused: ${name}`, () => {
    assert.throws(
      () => router.find(method, path),
      (cause) =>
        cause instanceof Failure && cause.name === name && cause.headers['allow'] === allow,
    );
  });
}

test('a path is for servers if all its routes are for servers', () => {
  const mixed = new Router([
    serverRoute('POST', '/events', handle),
    serverRoute('GET', '/users/:id', handle),
    serverRoute('GET', '/mixed', handle),
    route('POST', '/mixed', handle),
  ]);

  const paths = ['/events', '/users/1', '/users/%ff', '/mixed', '/nowhere'];
  assert.deepEqual(
    paths.filter((path) => mixed.isServerPath(path)),
    ['/events', '/users/1', '/users/%ff'],
  );
});

test('a route that is defined twice is refused', () => {
  const routes = [route('GET', '/a/:b', handle), route('GET', '/a/:b', handle)];

  assert.throws(() => new Router(routes), /GET \/a\/:b is defined twice/);
});
