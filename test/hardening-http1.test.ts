import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { describe, type TestContext, test } from 'node:test';
import type { HttpLimits } from '../src/http/limits/limits.js';
import { json } from '../src/http/reply.js';
import { route } from '../src/http/router.js';
import { RawTls } from './support/clients/raw-tls.js';
import { startHttp } from './support/servers/http-server.js';
import { usesTls, withTlsAll } from './support/servers/scheme.js';
import { startTargetServer } from './support/servers/target-server.js';
import { until } from './support/until.js';
import { withDeadline } from './support/with-deadline.js';

const host = 'host: localhost\r\n';
const get = (path: string, extraHeaders = '') =>
  `GET ${path} HTTP/1.1\r\n${host}${extraHeaders}\r\n`;
const post = (extraHeaders: string, body: string) =>
  `POST /echo HTTP/1.1\r\n${host}content-type: application/json\r\n${extraHeaders}\r\n${body}`;
const chunked = (extraHeaders: string, body = '1\r\n1\r\n0\r\n\r\n') =>
  post(`transfer-encoding: chunked\r\n${extraHeaders}`, body);

/** Returns the status of each response so far, without interim responses. */
function getStatuses(client: RawTls): number[] {
  const lines = client.received.toString('latin1').matchAll(/HTTP\/1\.1 (\d{3}) /g);
  return [...lines].map(([, status]) => Number(status)).filter((status) => status >= 200);
}

/** Sends `text`, waits for the first response or the end of the connection, and returns the statuses. */
async function sendAndReadStatuses(
  port: number,
  text: string,
): Promise<{ client: RawTls; statuses: number[] }> {
  const client = await RawTls.open(port, 'http/1.1');
  client.write(Buffer.from(text, 'latin1'));
  await client.until(() => getStatuses(client).length > 0);
  return { client, statuses: getStatuses(client) };
}

/** A request hidden behind a request whose length is ambiguous. */
const smuggledRequest = get('/hello', 'hidden: 1\r\n');

// [case, bytes]; the connection ends, and the second request, if any, is never processed.
const malformed: readonly (readonly [string, string])[] = [
  ['no HTTP at all', '\x16\x03\x01 what?\r\n\r\n'],
  ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
  ['a folded header', get('/hello', 'a: b\r\n c\r\n')],
  [
    'a folded transfer-encoding',
    post('transfer-encoding:\r\n chunked\r\n', '0\r\n\r\n') + smuggledRequest,
  ],
  ['a space before the colon', get('/hello', 'a : b\r\n')],
  ['a space before the first header', `GET /hello HTTP/1.1\r\n a: b\r\n${host}\r\n`],
  ['a bare carriage return', get('/hello', 'a: b\rc\r\n')],
  ['bare line feeds', `GET /hello HTTP/1.1\nhost: localhost\n\n`],
  ['NUL in a header', get('/hello', 'a: b\0c\r\n')],
  [
    'the same length twice',
    post('content-length: 1\r\ncontent-length: 1\r\n', '1') + smuggledRequest,
  ],
  ['two lengths', post('content-length: 1\r\ncontent-length: 5\r\n', '1') + smuggledRequest],
  ['a list of lengths', post('content-length: 1, 1\r\n', '1') + smuggledRequest],
  ['a negative length', post('content-length: -1\r\n', '1') + smuggledRequest],
  ['a length with a sign', post('content-length: +1\r\n', '1') + smuggledRequest],
  ['a length in hex', post('content-length: 0x1\r\n', '1') + smuggledRequest],
  ['a length and chunks', chunked('content-length: 3\r\n') + smuggledRequest],
  [
    'chunks and a length',
    post('content-length: 3\r\ntransfer-encoding: chunked\r\n', '0\r\n\r\n') + smuggledRequest,
  ],
  ['two transfer-encodings', chunked('transfer-encoding: identity\r\n') + smuggledRequest],
  [
    'an unknown transfer-encoding',
    post('transfer-encoding: xchunked\r\n', '0\r\n\r\n') + smuggledRequest,
  ],
  ['identity as transfer-encoding', post('transfer-encoding: identity\r\n', '1') + smuggledRequest],
  [
    'a transfer-encoding after a tab',
    post('transfer-encoding: \x0bchunked\r\n', '0\r\n\r\n') + smuggledRequest,
  ],
  ['a chunk size that overflows', chunked('', `${'f'.repeat(17)}\r\n1`) + smuggledRequest],
  ['chunks that end with line feeds', chunked('', '1\n1\n0\n\n') + smuggledRequest],
  [
    'an endless chunk extension',
    chunked('', `1;${'a'.repeat(20_000)}\r\n1\r\n0\r\n\r\n`) + smuggledRequest,
  ],
  ['CONNECT', `CONNECT localhost:1 HTTP/1.1\r\n${host}\r\n${smuggledRequest}`],
  ['headers past their limit', get('/hello', `a: ${'x'.repeat(17_000)}\r\n`)],
  ['a path past the limit of the headers', get(`/${'x'.repeat(17_000)}`)],
  ['10,000 header lines', get('/hello', 'a:b\r\n'.repeat(10_000))],
];

for (const [what, text] of withTlsAll(malformed, 3)) {
  const isHttp2 = !usesTls && text.startsWith('PRI'); // Without TLS, the preface of HTTP/2 selects it.
  test(`malformed HTTP/1.1 (${what}) ends the connection, and no request is processed`, {
    skip: isHttp2,
  }, async (t) => {
    const { port, bodies, lines, assertHealthy } = await startTargetServer(t);

    const { client, statuses } = await sendAndReadStatuses(port, text);
    await client.ended;

    assert.ok(statuses.length <= 1 && statuses.every((status) => [400, 431].includes(status)));
    assert.deepEqual(bodies, []);
    assert.deepEqual(
      lines.filter(({ status }) => status === 200),
      [],
    );
    await assertHealthy(() => client.destroy());
  });
}

// [case, bytes, status]; Herald itself sends a complete response to these.
const refused: readonly (readonly [string, string, number])[] = [
  ['no host', 'GET /hello HTTP/1.1\r\n\r\n', 400],
  ['an empty host in HTTP/1.0', 'GET /hello HTTP/1.0\r\nhost:\r\n\r\n', 400],
  ['two hosts', get('/hello', 'host: elsewhere\r\n'), 400],
  ['an invalid host', 'GET /hello HTTP/1.1\r\nhost: a@b\r\n\r\n', 400],
  ['a path without a slash', get('hello'), 400],
  ['TRACE', `TRACE /hello HTTP/1.1\r\n${host}\r\n`, 501],
  ['a method of WebDAV', `PROPFIND /hello HTTP/1.1\r\n${host}\r\n`, 501],
  ['an unknown method', `BREW /hello HTTP/1.1\r\n${host}\r\n`, 501],
  ['an unknown method that begins like GET', `GETX /hello HTTP/1.1\r\n${host}\r\n`, 501],
  ['a method in lower case', `get /hello HTTP/1.1\r\n${host}\r\n`, 501],
  ['a line that is not a request line', 'hello\r\n\r\n', 400],
  ['the path * without OPTIONS', get('*'), 400],
  ['an unknown expectation', post('content-length: 1\r\nexpect: tea\r\n', '1'), 417],
  ['one header line too many', get('/hello', 'a:b\r\n'.repeat(128)), 431],
  ['a body over the limit', chunked('', `4000\r\n${'1'.repeat(0x4000)}\r\n0\r\n\r\n`), 413],
  ['a body with a content-length over the limit', post('content-length: 9000\r\n', '1'), 413],
];

const incomplete: typeof refused = [
  ['a body that never comes', post('content-length: 5\r\n', '1'), 408],
  ['headers that never end', `GET /hello HTTP/1.1\r\n${host}`, 408],
  ['a connection that sends nothing', '', 408],
];

/** Only `bodyMs` is very short: the clients of `assertHealthy` must complete a handshake and headers in time. */
const shortTimeouts = { bodyMs: 400, headersMs: 3000, handshakeMs: 3000 };

function testRefusal([what, text, status]: (typeof refused)[number], limits: Partial<HttpLimits>) {
  test(`${what} is rejected with ${status}`, async (t) => {
    const { port, bodies, assertHealthy } = await startTargetServer(t, limits);

    const { client, statuses } = await sendAndReadStatuses(port, text);

    assert.deepEqual(statuses, [status]);
    assert.deepEqual(bodies, []);
    await assertHealthy(() => client.destroy());
  });
}

for (const row of withTlsAll(refused)) testRefusal(row, {});

// [case, bytes, status]
const tolerated: readonly (readonly [string, string, number])[] = [
  ['an absolute URL as target', `GET https://localhost/hello HTTP/1.1\r\n${host}\r\n`, 200],
  ['an absolute URL without a path', `GET https://localhost HTTP/1.1\r\n${host}\r\n`, 404],
  ['the path * of OPTIONS', `OPTIONS * HTTP/1.1\r\n${host}\r\n`, 204],
  ['HTTP/1.0', `GET /hello HTTP/1.0\r\n${host}\r\n`, 200],
  ['HTTP/1.0 without a host', 'GET /hello HTTP/1.0\r\n\r\n', 200],
  ['HTTP/2.0 in the first line', `GET /hello HTTP/2.0\r\n${host}\r\n`, 200],
  ['chunks', chunked(''), 200],
  ['an expectation of 100', post('content-length: 1\r\nexpect: 100-continue\r\n', '1'), 200],
  ['as many header lines as allowed', get('/hello', 'a:b\r\n'.repeat(127)), 200],
  [
    'an upgrade to a web socket',
    get('/hello', 'connection: upgrade\r\nupgrade: websocket\r\n'),
    200,
  ],
  ['an upgrade to HTTP/2', get('/hello', 'connection: upgrade\r\nupgrade: h2c\r\n'), 200],
];

for (const [what, text, status] of withTlsAll(tolerated)) {
  test(`${what} gets a normal response with ${status}`, async (t) => {
    const { port, assertHealthy } = await startTargetServer(t);

    const { client, statuses } = await sendAndReadStatuses(port, text);

    assert.deepEqual(statuses, [status]);
    await assertHealthy(() => client.destroy());
  });
}

test('an HTTP/1.1 upload cut short by the client is not processed', async (t) => {
  const { port, bodies, lines, assertHealthy } = await startTargetServer(t);
  const client = await RawTls.open(port, 'http/1.1');
  client.write(post('content-length: 5\r\n', '[1]'));
  await until(() => client.socket.bytesWritten > 0);

  client.socket.end();

  await until(() => lines.some(({ phrase }) => phrase === 'request'));
  assert.deepEqual(bodies, []);
  await assertHealthy(() => client.destroy());
});

test('pipelined requests are answered in order', async (t) => {
  const { port, bodies } = await startTargetServer(t);

  const { client } = await sendAndReadStatuses(
    port,
    ['1', '2', '3'].map((body) => post('content-length: 1\r\n', body)).join(''),
  );
  await client.until(() => getStatuses(client).length === 3);

  assert.deepEqual(bodies, [1, 2, 3]);
  client.destroy();
});

const brokenRests = [
  ['garbage', 'what?\r\n\r\n', 400],
  ['a request with an unknown method', `BREW /hello HTTP/1.1\r\n${host}\r\n`, 501],
  ['headers past their limit', get('/hello', `a: ${'x'.repeat(17_000)}\r\n`), 431],
] as const;

for (const [what, rest, status] of withTlsAll(brokenRests)) {
  test(`${what} after pipelined requests gets ${status} after their responses`, async (t) => {
    const { port, bodies, assertHealthy } = await startTargetServer(t);
    const client = await RawTls.open(port, 'http/1.1');

    client.write(get('/big') + post('content-length: 1\r\n', '1') + rest);
    await until(() => client.socket.readableEnded || client.socket.destroyed);

    assert.deepEqual(getStatuses(client), [200, 200, status]);
    assert.match(client.received.toString(), /x{100000}"HTTP\/1\.1 200 [\s\S]*\{"body":1\}HTTP/);
    assert.deepEqual(bodies, [1]);
    await assertHealthy(() => client.destroy());
  });
}

test('garbage after a request whose response is being streamed ends the connection without a second status line', async (t) => {
  const { port, sinks, assertHealthy } = await startTargetServer(t);
  const { client } = await sendAndReadStatuses(port, get('/stream'));
  await until(() => sinks.length === 1);

  client.write('what?\r\n\r\n');
  await until(() => client.socket.readableEnded || client.socket.destroyed);

  assert.deepEqual(getStatuses(client), [200]);
  await assertHealthy(() => client.destroy());
});

test('requests pipelined behind a stream wait and are dropped when the client disconnects', async (t) => {
  const { port, sinks, server, assertHealthy } = await startTargetServer(t);

  const { client } = await sendAndReadStatuses(
    port,
    get('/stream') + get('/stream') + post('content-length: 1\r\n', '1'),
  );
  await until(() => sinks.length > 0);
  let closes = 0;
  sinks[0]?.onClose(() => {
    closes += 1;
  });
  assert.equal(server.connections, 1);
  client.destroy();
  await until(() => closes === 1);

  assert.equal(sinks.length, 1);
  await assertHealthy(() => {});
});

test('more pipelined requests than streamsPerH2SessionMax end the connection', async (t) => {
  const { port, assertHealthy } = await startTargetServer(t, { streamsPerH2SessionMax: 8 });
  const withinLimit = await RawTls.open(port, 'http/1.1');
  withinLimit.write(get('/never') + get('/hello').repeat(7));

  const overLimit = await RawTls.open(port, 'http/1.1');
  overLimit.write(get('/never') + get('/hello').repeat(8));
  await overLimit.ended;

  assert.equal(withinLimit.socket.readableEnded, false);
  await assertHealthy(() => withinLimit.destroy());
});

test('a client that continues after a syntax error is disconnected', async (t) => {
  const { port, server } = await startTargetServer(t);
  const { client } = await sendAndReadStatuses(port, 'what?\r\n\r\n');

  client.write('what?\r\n\r\n');

  await until(() => server.connections === 0);
  client.destroy();
});

test('an HTTP/1.0 connection ends after the response, unless the client asks to keep it', async (t) => {
  const { port, assertHealthy } = await startTargetServer(t);
  const { client: once } = await sendAndReadStatuses(port, 'GET /hello HTTP/1.0\r\n\r\n');
  await once.ended;

  const keepAlive = 'GET /hello HTTP/1.0\r\nconnection: keep-alive\r\n\r\n';
  const { client: kept } = await sendAndReadStatuses(port, keepAlive);
  kept.write(keepAlive);
  await kept.until(() => getStatuses(kept).length === 2);

  assert.deepEqual([getStatuses(once), getStatuses(kept)], [[200], [200, 200]]);
  assert.match(once.received.toString(), /\r\nconnection: close\r\n/i);
  assert.match(kept.received.toString(), /\r\nconnection: keep-alive\r\n/i);
  await assertHealthy(() => [once, kept].map((client) => client.destroy()));
});

test('a stream over HTTP/1.0 is not chunked and ends with its connection', async (t) => {
  const { port, sinks, assertHealthy } = await startTargetServer(t);
  const { client } = await sendAndReadStatuses(port, 'GET /stream HTTP/1.0\r\n\r\n');
  await until(() => sinks.length === 1);

  sinks[0]?.end(Buffer.from('data: x\n\n'));
  await client.ended;

  const [head, body] = client.received.toString().split('\r\n\r\n');
  assert.doesNotMatch(head ?? '', /transfer-encoding/i);
  assert.equal(body, 'data: x\n\n');
  await assertHealthy(() => client.destroy());
});

test('plain HTTP on the TLS port is rejected', { skip: !usesTls }, async (t) => {
  const { port, server, assertHealthy } = await startTargetServer(t);
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  socket.on('error', () => {});
  t.after(() => socket.destroy());
  const ended = new Promise((resolve) => socket.once('end', resolve).once('close', resolve));
  socket.resume().write(get('/hello'));

  await withDeadline(ended, 'the end of the connection');

  await until(() => server.connections === 0);
  await assertHealthy(() => {});
});

test('connections over the limit are reset, and closing one frees its slot', async (t) => {
  const { port, server } = await startTargetServer(t, { connectionsMax: 2 });
  const [first] = [await RawTls.open(port, 'h2'), await RawTls.open(port, 'http/1.1')];

  const third = RawTls.open(port, 'h2'); // Without TLS it is open until the server resets it.
  await third.then(
    (client) => client.ended,
    () => {},
  );

  first?.destroy();
  await until(() => server.connections === 1);
  (await RawTls.open(port, 'h2')).destroy();
});

// These tests wait for time limits, so they run at the same time.
describe('time limits over HTTP/1.1', { concurrency: true }, () => {
  for (const row of incomplete) testRefusal(row, shortTimeouts);

  test('garbage after a request whose response is still being sent gets its status line after that response', async (t) => {
    const length = 30_000_000; // More than the socket buffers hold.
    const routes = [route('GET', '/large', () => json(200, 'x'.repeat(length)))];
    let unreadable = 0;
    const onUnreadable = () => {
      unreadable += 1;
    };
    const { port, server } = await startHttp(t, routes, { onUnreadable, limits: { endMs: 4000 } });
    const client = await RawTls.open(port, 'http/1.1');
    client.socket.pause();
    client.write(`${get('/large')}what?\r\n\r\n`);
    await until(() => unreadable === 1);

    client.socket.resume();
    await until(() => client.socket.readableEnded || client.socket.destroyed);

    const text = client.received.toString('latin1');
    const [, body = ''] = text.split('\r\n\r\n');
    assert.equal(body.indexOf('HTTP/1.1 400'), length + 2);
    assert.deepEqual(getStatuses(client), [200, 400]);
    await until(() => server.connections === 0);
  });

  test('a client that sends its headers slowly gets 408 and is disconnected', async (t) => {
    const { port, server } = await startTargetServer(t, { headersMs: 400, endMs: 300 });
    const client = await dripHeaders(t, port);

    await client.until(() => getStatuses(client).length > 0);
    await until(() => server.connections === 0);

    assert.deepEqual(getStatuses(client), [408]);
  });

  test('an idle keep-alive connection is closed', async (t) => {
    const { port, server } = await startTargetServer(t, { idleMs: 1500 });
    const { client } = await sendAndReadStatuses(port, get('/hello'));

    await client.ended;

    await until(() => server.connections === 0);
  });

  test('a client that sends only line ends is disconnected', async (t) => {
    const { port, server } = await startTargetServer(t, { idleMs: 1500 });
    const { client, statuses } = await sendAndReadStatuses(port, get('/hello'));
    const dripping = setInterval(() => client.write('\r\n'), 20);
    t.after(() => clearInterval(dripping));

    await until(() => server.connections === 0);

    assert.deepEqual(statuses, [200]);
  });

  test('a stream over HTTP/1.1 without any traffic is closed', async (t) => {
    const { port, sinks, server } = await startTargetServer(t, { idleMs: 1500 });
    const { client } = await sendAndReadStatuses(port, get('/stream'));

    await client.ended;

    await until(() => server.connections === 0);
    assert.equal(sinks[0]?.closed, true);
  });

  test('a connection on which nothing is sent is closed', async (t) => {
    const limits = { handshakeMs: 3000, endMs: 300 };
    const { port, server, assertHealthy } = await startTargetServer(t, limits);
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    t.after(() => socket.destroy());
    await until(() => server.connections === 1);

    await until(() => server.connections === 0);

    await assertHealthy(() => {});
  });
});

/** Opens a connection and sends a header line every 20 ms until the test ends. */
async function dripHeaders(t: TestContext, port: number): Promise<RawTls> {
  const client = await RawTls.open(port, 'http/1.1');
  client.write('GET /hello HTTP/1.1\r\n');
  const drip = setInterval(() => client.write('a: b\r\n'), 20);
  t.after(() => {
    clearInterval(drip);
    client.destroy();
  });
  return client;
}
