import assert from 'node:assert/strict';
import { connect } from 'node:http2';
import { test } from 'node:test';
import { ask } from '../../test/support/clients/ask.js';
import { protocols } from '../../test/support/clients/exchange.js';

import { fields, headers, RawH2 } from '../../test/support/clients/raw-h2.js';
import { RawTls } from '../../test/support/clients/raw-tls.js';
import { testCertificate } from '../../test/support/servers/certificate.js';
import { startHttp } from '../../test/support/servers/http-server.js';
import { until } from '../../test/support/until.js';
import type { Exchange } from './exchange.js';
import { json } from './reply.js';
import { route } from './router.js';

const echoRoute = route('ALL', '/seen', (exchange) => {
  const { protocol, method, url, path, query, headers, hostname, ip, id } = exchange;
  const request = { protocol, method, url, path, hostname, ip, id, cookie: headers['cookie'] };
  const authorizations = exchange.headerValues('authorization');
  const pseudo = Object.keys(headers).filter((name) => name.startsWith(':'));
  return json(200, { ...request, query: [...query], authorizations, pseudo });
});

/** Returns the newest line about a request. Connections log lines, too. */
const findRequestLine = (lines: readonly Record<string, unknown>[]) =>
  lines.findLast(({ phrase }) => phrase === 'request');

for (const protocol of protocols) {
  test(`a handler sees the request as it was sent over ${protocol}`, async (t) => {
    const { port } = await startHttp(t, [echoRoute]);

    const path = '/seen?a=1&a=%C3%A9&b';
    const { body } = await ask(protocol, port, 'PUT', path, { headers: { cookie: 'a=1; b=2' } });

    const { id, ...rest } = body;
    assert.match(String(id), /^[\da-f-]{36}$/);
    assert.deepEqual(rest, {
      protocol,
      method: 'PUT',
      url: path,
      path: '/seen',
      hostname: '127.0.0.1',
      ip: '127.0.0.1',
      cookie: 'a=1; b=2',
      query: [
        ['a', '1'],
        ['a', 'é'],
        ['b', ''],
      ],
      authorizations: [],
      pseudo: [],
    });
  });

  test(`a handler sees both Authorization headers of a request over ${protocol}`, async (t) => {
    const { port } = await startHttp(t, [echoRoute]);

    const headers = { authorization: ['Bearer a', 'Bearer b'] };
    // Node's HTTP/2 client would send only one of them.
    const authorizations =
      protocol === 'h2'
        ? await sendTwoAuthorizations(port)
        : (await ask(protocol, port, 'GET', '/seen', { headers })).body['authorizations'];

    assert.deepEqual(authorizations, ['Bearer a', 'Bearer b']);
  });

  // [x-request-id, whether it is kept]
  const requestIds = [
    ['request-1', true],
    ['a'.repeat(64), true],
    ['a'.repeat(7), false],
    ['a'.repeat(65), false],
    ['with space', false],
    ['line%0abreak', false],
  ] as const;
  for (const [requestId, isKept] of requestIds) {
    test(`a request id of ${requestId.length} characters (${requestId.slice(0, 12)}) is ${isKept ? 'kept' : 'replaced'} over ${protocol}`, async (t) => {
      const { port, lines } = await startHttp(t, [echoRoute]);

      for (const path of ['/seen', '/nowhere']) {
        const { headers, body } = await ask(protocol, port, 'GET', path, {
          headers: { 'x-request-id': requestId },
        });
        const id = headers['x-request-id'];
        assert.equal(id === requestId, isKept);
        assert.equal(body['id'] ?? body['instance'], id);
        assert.equal(findRequestLine(lines)?.['requestId'], id);
      }
    });
  }

  test(`X-Forwarded-For is trusted for the configured number of proxies over ${protocol}`, async (t) => {
    for (const [trustProxyHops, ip] of [
      [0, '127.0.0.1'],
      [1, '192.0.2.2'],
      [2, '192.0.2.1'],
    ] as const) {
      const { port, lines } = await startHttp(t, [echoRoute], { trustProxyHops });

      const headers = { 'x-forwarded-for': '10.0.0.1, 192.0.2.1, 192.0.2.2' };
      const { body } = await ask(protocol, port, 'GET', '/seen', { headers });

      assert.equal(body['ip'], ip);
      assert.equal(findRequestLine(lines)?.['ip'], ip);
    }
  });

  test(`an unusable X-Forwarded-For is logged once, if the handler uses the client address, over ${protocol}`, async (t) => {
    const unaware = route('GET', '/unaware', () => json(200, {}));
    const { port, lines } = await startHttp(t, [echoRoute, unaware], { trustProxyHops: 2 });
    const unusable = ['', '192.0.2.1', 'unknown, 192.0.2.2'];

    for (const forwardedFor of [...unusable, ...unusable, '192.0.2.1:80, 192.0.2.2:80']) {
      const headers = forwardedFor === '' ? {} : { 'x-forwarded-for': forwardedFor };
      await ask(protocol, port, 'GET', '/unaware', { headers });
      await ask(protocol, port, 'GET', '/seen', { headers });
    }

    const warnings = lines.filter(({ level }) => level === 'warn');
    const reasons = ['missing', 'fewer addresses than TRUST_PROXY_HOPS', 'not an address'];
    const phrase = 'X-Forwarded-For is unusable';
    assert.deepEqual(
      warnings,
      reasons.map((reason) => ({ level: 'warn', reason, ip: '127.0.0.1', phrase })),
    );
  });

  test(`the signal of an exchange aborts when the client disconnects before the response, not after it, over ${protocol}`, async (t) => {
    const exchanges: Exchange[] = [];
    const aborted: string[] = [];
    const track = (exchange: Exchange) => {
      exchanges.push(exchange);
      exchange.signal.addEventListener('abort', () => aborted.push(exchange.path));
    };
    const { port, server } = await startHttp(t, [
      route('GET', '/answers', (exchange) => {
        track(exchange);
        return json(200, {});
      }),
      route('GET', '/waits', (exchange) => {
        track(exchange);
        return new Promise(() => {});
      }),
    ]);

    await ask(protocol, port, 'GET', '/answers');
    await until(() => server.connections === 0);
    assert.deepEqual(aborted, []);
    const disconnect = await startWaitingRequest(protocol, port);
    await until(() => exchanges.length === 2);
    disconnect();

    await until(() => aborted.length > 0);
    assert.deepEqual(aborted, ['/waits']);
    assert.equal(exchanges[0]?.signal.aborted, false);
  });
}

// [Host header, hostname]
const hosts = [
  ['localhost', 'localhost'],
  ['localhost:9001', 'localhost'],
  ['[::1]', '[::1]'],
  ['[::1]:9001', '[::1]'],
  ['[2001:db8::5:0:1]:9001', '[2001:db8::5:0:1]'],
  ['LocalHost.:443', 'LocalHost.'],
] as const;

for (const [host, hostname] of hosts) {
  test(`the hostname of ${host} is ${hostname}`, async (t) => {
    const { port } = await startHttp(t, [echoRoute]);

    assert.equal(
      (await ask('http/1.1', port, 'GET', '/seen', { headers: { host } })).body['hostname'],
      hostname,
    );
    assert.equal(
      (await ask('h2', port, 'GET', '/seen', { headers: { ':authority': host } })).body['hostname'],
      hostname,
    );
  });
}

for (const host of [
  '[::1',
  '::1',
  '[::1]x',
  'a b',
  'user@localhost',
  'localhost:',
  'localhost:port',
  'a,b',
  '',
]) {
  test(`an invalid Host header is refused: ${host}`, async (t) => {
    const { port } = await startHttp(t, [echoRoute]);

    const client = await RawTls.open(port, 'http/1.1');
    client.write(`GET /seen HTTP/1.1\r\nhost: ${host}\r\n\r\n`);
    await client.until((received) => received.length > 0);

    assert.match(String(client.received), /^HTTP\/1.1 400 /);
    client.destroy();
  });
}

async function sendTwoAuthorizations(port: number): Promise<unknown> {
  const client = await RawH2.open(port);
  const authorizations = [
    ['authorization', 'Bearer a'],
    ['authorization', 'Bearer b'],
  ] as const;
  client.send(headers(1, fields('GET', '/seen', authorizations)));
  const body = await client.readJson(1);
  client.destroy();
  return body?.['authorizations'];
}

/** Sends a request to `/waits`; returns a function that disconnects the client. */
async function startWaitingRequest(protocol: string, port: number): Promise<() => void> {
  if (protocol === 'h2') {
    const session = connect(`https://127.0.0.1:${port}`, { ca: testCertificate.cert });
    session.request({ ':path': '/waits' }).on('error', () => {});
    return () => session.destroy();
  }
  const client = await RawTls.open(port, 'http/1.1');
  client.write('GET /waits HTTP/1.1\r\nhost: a\r\n\r\n');
  return () => client.destroy();
}
