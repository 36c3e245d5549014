import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ask } from '../../test/support/clients/ask.js';
import { protocols } from '../../test/support/clients/exchange.js';
import { startHttp } from '../../test/support/servers/http-server.js';
import { Failure } from '../errors.js';
import { requestedHeadersMax } from './headers.js';
import { json } from './reply.js';
import { route, serverRoute } from './router.js';

const listedOrigin = 'https://app.example';
const routes = [
  route('GET', '/hello', () => json(200, {})),
  route('POST', '/hello', () => json(200, {})),
  route('ALL', '/all', () => json(200, {})),
  route('GET', '/fails', () => {
    throw new Failure('not_found', 'Cannot find this');
  }),
  serverRoute('POST', '/publish', () => json(200, {})),
];

/** Returns the names of the CORS headers of a response. */
const getCorsNames = (headers: Readonly<Record<string, string>>) =>
  Object.keys(headers).filter((name) => name.startsWith('access-control'));

for (const protocol of protocols) {
  test(`every response over ${protocol} has the security headers`, async (t) => {
    const { port } = await startHttp(t, routes);

    for (const path of ['/hello', '/fails', '/nowhere']) {
      const { headers } = await ask(protocol, port, 'GET', path);
      assert.equal(headers['strict-transport-security'], 'max-age=31536000');
      assert.equal(headers['x-content-type-options'], 'nosniff');
      assert.equal(
        headers['content-security-policy'],
        "default-src 'none'; frame-ancestors 'none'",
      );
      assert.equal(headers['referrer-policy'], 'no-referrer');
      assert.equal(headers['x-frame-options'], 'DENY');
      assert.equal(headers['cross-origin-resource-policy'], 'same-origin');
      assert.equal(headers['vary'], undefined);
    }
  });

  test(`Strict-Transport-Security is not sent over ${protocol} when it is disabled`, async (t) => {
    const { port } = await startHttp(t, routes, { isHstsEnabled: false });

    const { headers } = await ask(protocol, port, 'GET', '/hello');

    assert.equal(headers['strict-transport-security'], undefined);
    assert.equal(headers['x-content-type-options'], 'nosniff');
  });

  test(`a page of an origin that is not listed gets no CORS headers over ${protocol}`, async (t) => {
    const { port } = await startHttp(t, routes, { corsOrigins: [listedOrigin] });

    for (const origin of [
      'https://evil.example',
      'null',
      `${listedOrigin}.evil.example`,
      listedOrigin.toUpperCase(),
    ]) {
      for (const method of ['GET', 'OPTIONS']) {
        const { headers } = await ask(protocol, port, method, '/hello', { headers: { origin } });
        assert.deepEqual(getCorsNames(headers), []);
        assert.equal(headers['vary'], 'origin'); // A cache must not serve this to a listed origin.
      }
    }
  });

  test(`a page of a listed origin may read responses and errors, also with credentials, over ${protocol}`, async (t) => {
    const { port } = await startHttp(t, routes, {
      corsOrigins: ['https://other.example', listedOrigin],
    });
    const origin = { origin: listedOrigin };

    for (const path of ['/hello', '/fails', '/nowhere']) {
      const { headers } = await ask(protocol, port, 'GET', path, { headers: origin });
      assert.equal(headers['access-control-allow-origin'], listedOrigin);
      assert.match(headers['access-control-expose-headers'] ?? '', /x-request-id, retry-after/);
      assert.equal(headers['access-control-allow-credentials'], 'true');
      assert.equal(headers['cross-origin-resource-policy'], 'cross-origin');
      assert.equal(headers['vary'], 'origin');
    }

    const { status, headers } = await ask(protocol, port, 'OPTIONS', '/hello', {
      headers: { ...origin, 'access-control-request-method': 'POST' },
    });
    assert.equal(status, 204);
    assert.equal(headers['access-control-allow-origin'], listedOrigin);
    assert.equal(headers['access-control-allow-methods'], 'GET, POST, HEAD, OPTIONS');
    assert.equal(headers['access-control-allow-credentials'], 'true');
    assert.match(headers['access-control-allow-headers'] ?? '', /authorization.*last-event-id/);
    assert.equal(headers['access-control-max-age'], '600');
  });

  test(`no page may read the responses of a path for servers over ${protocol}`, async (t) => {
    const { port } = await startHttp(t, routes, { corsOrigins: [listedOrigin] });

    for (const method of ['POST', 'GET', 'OPTIONS']) {
      const { status, headers } = await ask(protocol, port, method, '/publish', {
        headers: { origin: listedOrigin, 'access-control-request-method': 'POST' },
      });
      assert.equal(status, { POST: 200, GET: 405, OPTIONS: 204 }[method]);
      assert.deepEqual(getCorsNames(headers), []);
      assert.equal(headers['vary'], 'origin');
    }
  });

  test(`a preflight over ${protocol} allows the headers that a listed origin asks for`, async (t) => {
    const { port } = await startHttp(t, routes, { corsOrigins: [listedOrigin] });
    const preflight = async (requested: string, origin = listedOrigin) => {
      const asked = { origin, 'access-control-request-headers': requested };
      const { headers } = await ask(protocol, port, 'OPTIONS', '/hello', { headers: asked });
      return headers;
    };
    const allowed = async (requested: string) =>
      (await preflight(requested))['access-control-allow-headers'];
    const always = await allowed('');

    // [requested, allowed in addition]
    const cases = [
      ['traceparent', ', traceparent'],
      ['baggage,sentry-trace, X-Trace', ', baggage, sentry-trace, x-trace'],
      ['authorization,content-type,traceparent', ', traceparent'],
      ['traceparent,traceparent', ', traceparent'],
      ['*', ''],
      ['*,traceparent', ', traceparent'],
      ['a b,c(d),<e>,\u00e9,,traceparent', ', traceparent'],
      ['x'.repeat(requestedHeadersMax - 1), `, ${'x'.repeat(requestedHeadersMax - 1)}`],
      ['x'.repeat(requestedHeadersMax), `, ${'x'.repeat(requestedHeadersMax)}`],
      ['x'.repeat(requestedHeadersMax + 1), ''],
    ] as const;
    for (const [requested, added] of cases) {
      assert.equal(await allowed(requested), `${always}${added}`, requested);
    }
    const headers = await preflight('traceparent');
    assert.equal(headers['vary'], 'origin, access-control-request-headers');
    const unlisted = await preflight('traceparent', 'https://evil.example');
    assert.deepEqual(getCorsNames(unlisted), []);
  });

  test(`OPTIONS over ${protocol} returns the methods of a path`, async (t) => {
    const { port } = await startHttp(t, routes);
    const options = async (path: string) => {
      const { status, headers } = await ask(protocol, port, 'OPTIONS', path);
      return [status, headers['allow']];
    };

    assert.deepEqual(await options('/hello'), [204, 'GET, POST, HEAD, OPTIONS']);
    assert.deepEqual(await options('/all'), [204, 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS']);
    assert.deepEqual(await options('/nowhere'), [404, undefined]);
    assert.deepEqual(await options('*'), [204, 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS']);
  });
}
