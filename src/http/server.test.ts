import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { connect as connectTcp } from 'node:net';
import { test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { ask } from '../../test/support/clients/ask.js';
import { type Protocol, protocols } from '../../test/support/clients/exchange.js';
import { H2Client } from '../../test/support/clients/h2-client.js';
import * as h2 from '../../test/support/clients/raw-h2.js';
import { code, fields, flag, RawH2, type } from '../../test/support/clients/raw-h2.js';
import { RawTls } from '../../test/support/clients/raw-tls.js';
import { testCertificate } from '../../test/support/servers/certificate.js';
import { startHttp } from '../../test/support/servers/http-server.js';
import { scheme, usesTls } from '../../test/support/servers/scheme.js';
import { until } from '../../test/support/until.js';
import { withDeadline } from '../../test/support/with-deadline.js';
import { createSelfSigned } from '../certificates/self-signed.js';
import { Failure } from '../errors.js';
import { json, type Reply, type Sink } from './reply.js';
import { route } from './router.js';

/**
 * Creates routes whose replies the test controls: `/held` through `answers`, `/stream` through `sinks`.
 */
function createDeferredRoutes() {
  const answers: ((reply: Reply | Promise<Reply>) => void)[] = [];
  const sinks: Sink[] = [];
  const routes = [
    route('GET', '/hello', () => json(200, { hello: true })),
    route('POST', '/hello', () => json(200, { hello: true })),
    route('GET', '/held', () => new Promise<Reply>((resolve) => answers.push(resolve))),
    route('GET', '/stream', () => streamedReply(sinks)),
  ];
  return { answers, sinks, routes };
}

function streamedReply(sinks: Sink[]): Reply {
  return { status: 200, headers: { 'x-kind': 'stream' }, open: (sink) => sinks.push(sink) };
}

const getErrorPhrases = (lines: readonly Record<string, unknown>[]) =>
  lines.filter(({ level }) => level === 'error').map(({ phrase }) => phrase);

for (const protocol of protocols) {
  const over = `over ${protocol}`;

  test(`HEAD returns the head of GET without a body ${over}`, async (t) => {
    const { routes, sinks } = createDeferredRoutes();
    const { port, server } = await startHttp(t, routes);

    const whole = await ask(protocol, port, 'HEAD', '/hello');
    const stream = await ask(protocol, port, 'HEAD', '/stream');

    assert.deepEqual([whole.status, whole.headers['content-length'], whole.text], [200, '14', '']);
    assert.deepEqual([stream.status, stream.headers['x-kind'], stream.text], [200, 'stream', '']);
    assert.deepEqual(sinks, []); // `open` is not called.
    await until(() => server.connections === 0);
  });

  test(`a defect is logged in full and answered without details ${over}`, async (t) => {
    const cause = new Error('secret');
    const { port, lines } = await startHttp(t, [
      route('GET', '/:how', (_, { how }) => {
        if (how === 'throws') throw cause;
        return Promise.reject(cause);
      }),
    ]);

    for (const path of ['/throws', '/rejects']) {
      const { status, body, text } = await ask(protocol, port, 'GET', path);
      assert.deepEqual([status, body['name']], [500, 'internal_server']);
      assert.doesNotMatch(text, /secret/);
      const line = lines.find(({ level }) => level === 'error');
      assert.deepEqual([line?.['phrase'], line?.['cause']], ['request failed', cause]);
      assert.equal(line?.['route'], '/:how');
    }
  });

  test(`a reply that cannot be sent is a defect, and the server continues ${over}`, async (t) => {
    const opened: Sink[] = [];
    const { port, lines } = await startHttp(t, [
      route('GET', '/name', () => json(200, {}, { 'an odd name': 'x' })),
      route('GET', '/info', () => {
        throw new Failure('not_found', 'Cannot find this', { info: { big: 1n } });
      }),
      route('GET', '/open', () => ({
        status: 200,
        headers: {},
        open(sink) {
          opened.push(sink);
          throw new Error('cannot open');
        },
      })),
      route('GET', '/hello', () => json(200, {})),
    ]);

    assert.equal((await ask(protocol, port, 'GET', '/name')).status, 500);
    await assert.rejects(ask(protocol, port, 'GET', '/info'));
    await ask(protocol, port, 'GET', '/open').catch(() => {}); // Node 20 ends the stream before the reset.
    await until(() => opened[0]?.closed === true);

    const expected = ['request failed', 'request handling failed', 'request failed'];
    assert.deepEqual(getErrorPhrases(lines), expected);
    assert.equal((await ask(protocol, port, 'GET', '/hello')).status, 200);
  });

  test(`a handler that finishes after its client disconnected is logged as 499 without an error ${over}`, async (t) => {
    const { routes, answers, sinks } = createDeferredRoutes();
    const { port, server, lines } = await startHttp(t, routes);
    const lateReplies = [
      () => json(200, {}),
      () => streamedReply(sinks),
      () => Promise.reject(new Error('gone')),
    ];

    for (const [index, reply] of lateReplies.entries()) {
      const disconnect = await startRequest(protocol, port, '/held');
      await until(() => answers.length > index);
      disconnect();
      await until(() => server.connections === 0);
      answers[index]?.(reply());
      await until(() => lines.filter(({ phrase }) => phrase === 'request').length > index);
    }

    const statuses = lines
      .filter(({ phrase }) => phrase === 'request')
      .map((line) => line['status']);
    assert.deepEqual(statuses, [499, 499, 499]);
    assert.deepEqual(sinks, []); // `open` is not called.
    assert.deepEqual(getErrorPhrases(lines), []);
  });

  test(`a log line contains the route, not the path ${over}`, async (t) => {
    const { port, lines } = await startHttp(t, [
      route('GET', '/stream/live/:token', () => json(200, {})),
    ]);

    await ask(protocol, port, 'GET', '/stream/live/t0ken?password=t0ken');
    await ask(protocol, port, 'GET', '/t0ken');
    await ask(protocol, port, 'DELETE', '/stream/live/t0ken');
    await ask(protocol, port, 'OPTIONS', '/stream/live/t0ken');

    assert.doesNotMatch(JSON.stringify(lines), /t0ken/);
    const routes = lines
      .filter(({ phrase }) => phrase === 'request')
      .map((line) => [line['method'], line['route'], line['status']]);
    assert.deepEqual(routes, [
      ['GET', '/stream/live/:token', 200],
      ['GET', '(none)', 404],
      ['DELETE', '(none)', 405],
      ['OPTIONS', '(options)', 204],
    ]);
  });

  test(`stopAccepting() closes idle connections and refuses new ones ${over}`, async (t) => {
    const { routes } = createDeferredRoutes();
    const { port, server } = await startHttp(t, routes);
    const [fresh, used] = [
      await connectIdle(protocol, port),
      await connectIdle(protocol, port, '/hello'),
    ];
    const inHandshake = connectTcp({ port, host: '127.0.0.1', allowHalfOpen: true });
    t.after(() => inHandshake.destroy());
    await until(() => server.connections === 3);

    server.stopAccepting();
    server.stopAccepting();

    const handshakeEnded = once(inHandshake.resume(), 'end');
    await Promise.all([
      ...[fresh.ended, used.ended],
      withDeadline(handshakeEnded, 'the end of the connection in its handshake'),
    ]);
    for (const client of [fresh, used]) client.destroy(); // Their own side is still open.
    await until(() => server.connections === 0);
    await assert.rejects(ask(protocol, port, 'GET', '/hello'), /ECONNREFUSED/);
    await server.close(60_000);
  });

  test(`close() waits for open exchanges, then closes the connection ${over}`, async (t) => {
    const { routes, answers, sinks } = createDeferredRoutes();
    const { port, server } = await startHttp(t, routes);
    const answer = ask(protocol, port, 'GET', '/held');
    const stream = ask(protocol, port, 'GET', '/stream');
    await until(() => answers.length === 1 && sinks.length === 1);

    const closed = server.close(60_000);
    answers[0]?.(json(200, { late: true }));
    const { status, body, headers } = await answer;
    sinks[0]?.end(Buffer.from('goodbye'));

    assert.deepEqual([status, body], [200, { late: true }]);
    assert.equal(headers['connection'], protocol === 'h2' ? undefined : 'close');
    assert.equal((await stream).text, 'goodbye');
    await closed;
    assert.equal(server.connections, 0);
    await server.close(60_000);
  });

  test(`close() destroys connections that are open at its deadline ${over}`, async (t) => {
    const { routes, answers, sinks } = createDeferredRoutes();
    const { port, server, lines } = await startHttp(t, routes);
    const answer = ask(protocol, port, 'GET', '/held');
    const stream = ask(protocol, port, 'GET', '/stream');
    const refusals = Promise.allSettled([answer, stream]);
    await until(() => answers.length === 1 && sinks.length === 1);
    const neverClosing = await connectIdle(protocol, port); // It never closes its side.

    await server.close(100);

    assert.equal(server.connections, 0);
    assert.deepEqual(
      (await refusals).map(({ status }) => status),
      ['rejected', 'rejected'],
    );
    await until(() => sinks[0]?.closed === true);
    assert.deepEqual(getErrorPhrases(lines), []);
    neverClosing.destroy();
  });
}

test('after GOAWAY, an HTTP/2 session completes its open streams and starts no new ones', async (t) => {
  const { routes, answers, sinks } = createDeferredRoutes();
  const { port, server, lines } = await startHttp(t, routes);
  const client = await RawH2.open(port);
  client.send(h2.headers(1, fields('GET', '/held')), h2.headers(3, fields('GET', '/stream')));
  await until(() => answers.length === 1 && sinks.length === 1);

  server.stopAccepting();
  client.send(h2.headers(5, fields('GET', '/hello')));
  assert.deepEqual(await client.readJson(5), { hello: true }); // Still served.
  const closed = server.close(60_000);
  const goaway = await client.frame((one) => one.type === type.goaway);
  assert.deepEqual(
    [goaway?.payload.readUInt32BE(0), goaway?.payload.readUInt32BE(4)],
    [5, code.none],
  );
  client.send(h2.headers(7, fields('GET', '/hello')));
  answers[0]?.(json(200, { late: true }));

  assert.deepEqual(await client.readJson(1), { late: true });
  sinks[0]?.end(Buffer.from('goodbye'));
  await client.ended;
  assert.equal(client.readData(3).toString(), 'goodbye');
  assert.equal(
    client.frames.filter((one) => one.streamId === 7 && one.type !== type.reset).length,
    0,
  );
  assert.equal(lines.filter((line) => line['route'] === '/hello').length, 1);
  client.destroy();
  await closed;
});

for (const state of ['accepts no connections', 'closes'] as const) {
  test(`while a server ${state}, it sends GOAWAY after the last frame of an ended stream`, async (t) => {
    const { routes, sinks } = createDeferredRoutes();
    const { port, server } = await startHttp(t, routes);
    const client = await RawH2.open(port);
    client.send(h2.headers(1, fields('GET', '/stream')));
    if (state === 'closes') client.send(h2.headers(3, fields('GET', '/held')));
    await until(() => sinks.length === 1);

    server.stopAccepting();
    sinks[0]?.end(Buffer.from('goodbye'));
    const closed = state === 'closes' ? server.close(60_000) : undefined;
    await client.frame((one) => one.type === type.goaway);

    assert.equal(client.readData(1).toString(), 'goodbye');
    const ends = client.frames.findIndex((one) => one.streamId === 1 && (one.flags & 1) === 1);
    assert.ok(ends >= 0 && ends < client.frames.findIndex((one) => one.type === type.goaway));
    client.destroy();
    await (closed ?? server.close(60_000));
  });
}

test('a busy connection gets GOAWAY when the server closes, and only later requests are refused', async (t) => {
  const large = 'x'.repeat(20_000);
  const routes = [route('GET', '/large', async () => json(200, { large }))];
  const { port, server } = await startHttp(t, routes);
  const client = await H2Client.connect(`${scheme}://127.0.0.1:${port}`);
  const goaways: unknown[] = [];
  client.session.on('goaway', (errorCode) => goaways.push(errorCode));
  let answered = 0;
  const askUntilRefused = async () => {
    for (;;) {
      const answer = await client.ask('GET', '/large');
      assert.equal(answer.status, 200);
      answered += 1;
    }
  };
  const asking = Array.from({ length: 50 }, askUntilRefused);
  const outcomes = Promise.allSettled(asking);
  await until(() => answered > 100);

  await server.close(20_000);

  assert.equal(goaways[0], code.none);
  // Requests that were sent after GOAWAY are refused, or not sent at all; the others are answered.
  for (const outcome of await outcomes) {
    assert.equal(outcome.status, 'rejected');
    assert.match(String(outcome.reason), /REFUSED_STREAM|GOAWAY|session/i);
  }
  client.destroy();
});

test('after the server stops, a keep-alive connection is closed once its open stream has ended', async (t) => {
  const { routes, sinks } = createDeferredRoutes();
  const { port, server } = await startHttp(t, routes);
  const client = await RawTls.open(port, 'http/1.1');
  client.write('GET /stream HTTP/1.1\r\nhost: localhost\r\n\r\n');
  await until(() => sinks.length === 1);

  const closed = server.close(60_000);
  sinks[0]?.end(Buffer.from('goodbye'));

  await client.ended;
  await closed;
  assert.match(String(client.received), /goodbye\r\n0\r\n\r\n$/);
  client.destroy();
});

test('a client that does not close its side after GOAWAY is disconnected', async (t) => {
  const { routes } = createDeferredRoutes();
  const { port, server } = await startHttp(t, routes, { limits: { endMs: 2000 } });
  const client = await connectIdle('h2', port, '/hello');

  server.stopAccepting();
  await client.ended;

  await server.close(60_000); // The client never closes its side.
  client.destroy();
});

test('a stream that is reset by its client does not affect the server or the HTTP/2 session', async (t) => {
  const { routes, answers } = createDeferredRoutes();
  const { port, lines } = await startHttp(t, routes);
  const client = await RawH2.open(port);
  client.send(h2.headers(1, fields('GET', '/held')));
  await until(() => answers.length === 1);

  client.send(h2.reset(1, code.internal), h2.headers(3, fields('GET', '/hello')));

  assert.deepEqual(await client.readJson(3), { hello: true });
  answers[0]?.(json(200, {}));
  await until(() => lines.some((line) => line['status'] === 499));
  assert.deepEqual(getErrorPhrases(lines), []);
  client.destroy();
});

test('a response without a body arrives even when it is sent before the end of the request', async (t) => {
  const { port } = await startHttp(t, createDeferredRoutes().routes);
  const client = await RawH2.open(port);
  t.after(() => client.destroy());

  for (const [streamId, method] of [
    [1, 'OPTIONS'],
    [3, 'HEAD'],
  ] as const) {
    client.send(h2.headers(streamId, fields(method, '/hello'), flag.endHeaders));
    await client.frame((one) => one.streamId === streamId && one.type === type.reset);
  }

  const answers = client.frames.filter((one) => one.streamId > 0).map((one) => one.type);
  assert.deepEqual(answers, [type.headers, type.reset, type.headers, type.reset]);
});

test('a response over HTTP/2 has no connection-specific headers', async (t) => {
  const { routes } = createDeferredRoutes();
  const { port } = await startHttp(t, routes);

  for (const path of ['/hello', '/nowhere']) {
    const { headers } = await ask('h2', port, 'GET', path);
    for (const name of ['connection', 'keep-alive', 'transfer-encoding', 'upgrade']) {
      assert.equal(headers[name], undefined);
    }
  }
});

test('a request with trailers is accepted', async (t) => {
  const { port } = await startHttp(t, [
    route('POST', '/echo', async (exchange) => json(200, { body: await exchange.body() })),
  ]);
  const client = await RawH2.open(port);

  const contentType = [['content-type', 'application/json']] as const;
  client.send(h2.headers(1, fields('POST', '/echo', contentType), flag.endHeaders));
  client.send(h2.data(1, '[1]'), h2.headers(1, [['checksum', '1']]));

  assert.deepEqual(await client.readJson(1), { body: [1] });
  client.destroy();
});

test('a new certificate applies to new connections, and a certificate that does not match its key is refused', {
  skip: !usesTls,
}, async (t) => {
  const { routes } = createDeferredRoutes();
  const { port, server } = await startHttp(t, routes);
  const replacement = createSelfSigned(['localhost'], Date.now());
  const oldConnection = await connectIdle('h2', port);

  assert.throws(() =>
    server.setCertificate({ key: replacement.privateKey, cert: testCertificate.cert }),
  );
  assert.equal(await fetchFingerprint(port), getFingerprint(testCertificate.cert));
  server.setCertificate({ key: replacement.privateKey, cert: replacement.certificate });

  assert.equal(await fetchFingerprint(port), getFingerprint(replacement.certificate));
  assert.equal(oldConnection.socket.destroyed, false);
  oldConnection.destroy();
});

test('ALPN prefers HTTP/2, then HTTP/1.1, accepts HTTP/1.0 or no ALPN, and refuses other protocols', {
  skip: !usesTls,
}, async (t) => {
  const { port } = await startHttp(t, createDeferredRoutes().routes);
  const negotiate = async (...protocols: string[]) => {
    const options = { port, host: '127.0.0.1', ALPNProtocols: protocols };
    const socket = connectTls({ ...options, rejectUnauthorized: false });
    t.after(() => socket.destroy());
    await withDeadline(once(socket, 'secureConnect'), `a handshake for ${protocols}`);
    return socket.alpnProtocol;
  };

  assert.equal(await negotiate('http/1.1', 'h2'), 'h2');
  assert.equal(await negotiate('spdy/3', 'http/1.1'), 'http/1.1');
  assert.equal(await negotiate('http/1.0', 'http/1.1'), 'http/1.1');
  assert.equal(await negotiate('http/1.0'), 'http/1.0');
  assert.equal(await negotiate(), false);
  await assert.rejects(negotiate('spdy/3'), {
    code: 'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL',
  });
});

test('a client that offers only http/1.0 by ALPN gets its response', {
  skip: !usesTls,
}, async (t) => {
  const { port, lines } = await startHttp(t, createDeferredRoutes().routes);
  const options = { port, host: '127.0.0.1', ALPNProtocols: ['http/1.0'] };
  const socket = connectTls({ ...options, ca: testCertificate.cert });
  t.after(() => socket.destroy());
  await once(socket, 'secureConnect');
  let received = '';
  socket.setEncoding('latin1').on('data', (text: string) => {
    received += text;
  });

  socket.write('GET /hello HTTP/1.0\r\n\r\n');
  await until(() => socket.readableEnded);

  assert.equal(socket.alpnProtocol, 'http/1.0');
  assert.match(received, /^HTTP\/1\.1 200 [\s\S]*\{"hello":true\}$/);
  const request = lines.find(({ phrase }) => phrase === 'request');
  assert.equal(request?.['protocol'], 'http/1.1');
});

test('listen() rejects for a port in use, an address of another machine, and a key that does not match the certificate', async (t) => {
  const { routes } = createDeferredRoutes();
  const { port } = await startHttp(t, routes);
  const { privateKey: key } = createSelfSigned(['localhost'], Date.now());

  await assert.rejects(
    startHttp(t, routes, { port }),
    /^Error: Cannot listen on .*: the port is in use/,
  );
  await assert.rejects(
    startHttp(t, routes, { host: '192.0.2.1' }),
    /HOST is not an address of this/,
  );
  await assert.rejects(startHttp(t, routes, { certificate: { ...testCertificate, key } }));
});

const getFingerprint = (pem: string) => new X509Certificate(pem).fingerprint256;

async function fetchFingerprint(port: number): Promise<string> {
  const socket = connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false });
  await withDeadline(once(socket, 'secureConnect'), 'a TLS connection');
  const { fingerprint256 } = socket.getPeerCertificate();
  socket.destroy();
  return fingerprint256;
}

/** Sends a request on a new connection; returns a function that disconnects. */
async function startRequest(protocol: Protocol, port: number, path: string): Promise<() => void> {
  const client = await openConnection(protocol, port);
  client.get(path);
  return () => client.tls.destroy();
}

/**
 * Opens a connection that is idle: never used or, with `path`, after one response. The client does not
 * close its side.
 */
async function connectIdle(protocol: Protocol, port: number, path?: string): Promise<RawTls> {
  const { tls, get } = await openConnection(protocol, port);
  if (path !== undefined) {
    get(path);
    await tls.until((received) => received.includes('{"hello":true}'));
  }
  return tls;
}

async function openConnection(protocol: Protocol, port: number) {
  if (protocol === 'h2') {
    const client = await RawH2.open(port);
    const get = (path: string) => client.send(h2.headers(1, fields('GET', path)));
    return { tls: client.tls, get };
  }
  const tls = await RawTls.open(port, 'http/1.1');
  return {
    tls,
    get: (path: string) => tls.write(`GET ${path} HTTP/1.1\r\nhost: localhost\r\n\r\n`),
  };
}

test('a streamed reply is cancelled once when its open() is not called or throws', async (t) => {
  const calls: string[] = [];
  const stream = (name: string, open = () => {}): Reply => ({
    status: 200,
    headers: {},
    open(sink) {
      calls.push(`${name} opened`);
      open();
      sink.end();
    },
    cancel: () => calls.push(`${name} cancelled`),
  });
  const { port } = await startHttp(t, [
    route('GET', '/read', () => stream('read')),
    route('GET', '/failing', () =>
      stream('failing', () => {
        throw new Error('on purpose');
      }),
    ),
    route('GET', '/abandoned', async ({ signal }) => {
      calls.push('abandoned requested');
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
      return stream('abandoned');
    }),
  ]);
  const client = await H2Client.connect(`${scheme}://127.0.0.1:${port}`);
  t.after(() => client.destroy());

  await client.ask('GET', '/read');
  await client.ask('HEAD', '/read');
  await client.ask('GET', '/failing').catch(() => {});
  const abandoned = client.request('GET', '/abandoned');
  abandoned.on('error', () => {});
  await until(() => calls.includes('abandoned requested'));
  abandoned.close();
  await until(() => calls.includes('abandoned cancelled'));

  assert.deepEqual(calls, [
    'read opened',
    'read cancelled',
    'failing opened',
    'failing cancelled',
    'abandoned requested',
    'abandoned cancelled',
  ]);
});
