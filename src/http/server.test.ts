import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { connect as connectTcp } from 'node:net';
import { test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { ask } from '../../test/support/clients/ask.js';
import { type Protocol, protocols } from '../../test/support/clients/exchange.js';
import * as h2 from '../../test/support/clients/raw-h2.js';
import { code, fields, flag, RawH2, type } from '../../test/support/clients/raw-h2.js';
import { RawTls } from '../../test/support/clients/raw-tls.js';
import { testCertificate } from '../../test/support/servers/certificate.js';
import { startHttp } from '../../test/support/servers/http-server.js';
import { until } from '../../test/support/until.js';
import { createSelfSigned } from '../commands/self-signed.js';
import { Failure } from '../errors.js';
import { json, type Reply, type Sink } from './reply.js';
import { route } from './router.js';

/** Routes that answer when the test says so. */
function deferredHandler() {
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

const errorLines = (lines: readonly Record<string, unknown>[]) =>
  lines.filter(({ level }) => level === 'error').map(({ phrase }) => phrase);

for (const protocol of protocols) {
  const over = `over ${protocol}`;

  test(`HEAD has the head of GET and no body ${over}`, async (t) => {
    const { routes, sinks } = deferredHandler();
    const { port, server } = await startHttp(t, routes);

    const whole = await ask(protocol, port, 'HEAD', '/hello');
    const stream = await ask(protocol, port, 'HEAD', '/stream');

    assert.deepEqual([whole.status, whole.headers['content-length'], whole.text], [200, '14', '']);
    assert.deepEqual([stream.status, stream.headers['x-kind'], stream.text], [200, 'stream', '']);
    assert.deepEqual(sinks, []); // There is nothing to write to.
    await until(() => server.connections === 0);
  });

  test(`a defect is logged whole and answered with nothing of it ${over}`, async (t) => {
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

  test(`a reply that cannot be sent is a defect, and the process lives ${over}`, async (t) => {
    const stays: Sink[] = [];
    const { port, lines } = await startHttp(t, [
      route('GET', '/name', () => json(200, {}, { 'an odd name': 'x' })),
      route('GET', '/info', () => {
        throw new Failure('not_found', 'Cannot find this', { info: { big: 1n } });
      }),
      route('GET', '/open', () => ({
        status: 200,
        headers: {},
        open(sink) {
          stays.push(sink);
          throw new Error('cannot open');
        },
      })),
      route('GET', '/hello', () => json(200, {})),
    ]);

    assert.equal((await ask(protocol, port, 'GET', '/name')).status, 500);
    await assert.rejects(ask(protocol, port, 'GET', '/info'));
    await ask(protocol, port, 'GET', '/open').catch(() => {}); // Node 20 sends an end first.
    await until(() => stays[0]?.closed === true);

    const expected = ['request failed', 'request handling failed', 'request failed'];
    assert.deepEqual(errorLines(lines), expected);
    assert.equal((await ask(protocol, port, 'GET', '/hello')).status, 200);
  });

  test(`a handler that is done after its client left disturbs nobody ${over}`, async (t) => {
    const { routes, answers, sinks } = deferredHandler();
    const { port, server, lines } = await startHttp(t, routes);
    const late = [
      () => json(200, {}),
      () => streamedReply(sinks),
      () => Promise.reject(new Error('gone')),
    ];

    for (const [index, reply] of late.entries()) {
      const leave = await startRequest(protocol, port, '/held');
      await until(() => answers.length > index);
      leave();
      await until(() => server.connections === 0);
      answers[index]?.(reply());
      await until(() => lines.filter(({ phrase }) => phrase === 'request').length > index);
    }

    const statuses = lines
      .filter(({ phrase }) => phrase === 'request')
      .map((line) => line['status']);
    assert.deepEqual(statuses, [499, 499, 499]);
    assert.deepEqual(sinks, []); // `open` is not for those who have left.
    assert.deepEqual(errorLines(lines), []);
  });

  test(`a log line names the route and not the path ${over}`, async (t) => {
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

  test(`stopAccepting() ends idle connections, and new ones are refused ${over}`, async (t) => {
    const { routes } = deferredHandler();
    const { port, server } = await startHttp(t, routes);
    const [fresh, used] = [
      await connectIdle(protocol, port),
      await connectIdle(protocol, port, '/hello'),
    ];
    const halfway = connectTcp({ port, host: '127.0.0.1', allowHalfOpen: true });
    t.after(() => halfway.destroy());
    await until(() => server.connections === 3);

    server.stopAccepting();
    server.stopAccepting();

    await Promise.all([fresh.ended, used.ended, once(halfway.resume(), 'end')]);
    for (const client of [fresh, used]) client.destroy(); // Until now its own side was open.
    await until(() => server.connections === 0);
    await assert.rejects(ask(protocol, port, 'GET', '/hello'), /ECONNREFUSED/);
    await server.close(60_000);
  });

  test(`close() waits for what is under way, then ends the connection ${over}`, async (t) => {
    const { routes, answers, sinks } = deferredHandler();
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

  test(`close() cuts off at its deadline what does not end ${over}`, async (t) => {
    const { routes, answers, sinks } = deferredHandler();
    const { port, server, lines } = await startHttp(t, routes);
    const answer = ask(protocol, port, 'GET', '/held');
    const stream = ask(protocol, port, 'GET', '/stream');
    const refusals = Promise.allSettled([answer, stream]);
    await until(() => answers.length === 1 && sinks.length === 1);
    const silent = await connectIdle(protocol, port); // It ignores every goodbye.

    await server.close(100);

    assert.equal(server.connections, 0);
    assert.deepEqual(
      (await refusals).map(({ status }) => status),
      ['rejected', 'rejected'],
    );
    await until(() => sinks[0]?.closed === true);
    assert.deepEqual(errorLines(lines), []);
    silent.destroy();
  });
}

test('a session is told to go away, finishes what it has begun, and begins nothing more', async (t) => {
  const { routes, answers, sinks } = deferredHandler();
  const { port, server, lines } = await startHttp(t, routes);
  const client = await RawH2.open(port);
  client.send(h2.headers(1, fields('GET', '/held')), h2.headers(3, fields('GET', '/stream')));
  await until(() => answers.length === 1 && sinks.length === 1);

  server.stopAccepting();
  const goaway = await client.frame((one) => one.type === type.goaway);
  assert.deepEqual(
    [goaway?.payload.readUInt32BE(0), goaway?.payload.readUInt32BE(4)],
    [3, code.none],
  );
  client.send(h2.headers(5, fields('GET', '/hello')));
  answers[0]?.(json(200, { late: true }));

  assert.deepEqual(await client.readJson(1), { late: true });
  sinks[0]?.end(Buffer.from('goodbye'));
  await client.ended;
  assert.equal(client.readData(3).toString(), 'goodbye');
  assert.equal(
    client.frames.filter((one) => one.streamId === 5 && one.type !== type.reset).length,
    0,
  );
  assert.deepEqual(
    lines.filter((line) => line['route'] === '/hello'),
    [],
  );
  client.destroy();
  await server.close(60_000);
});

test('a connection kept alive ends with the stream that was open when the server stopped', async (t) => {
  const { routes, sinks } = deferredHandler();
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

test('a client that stays after its goodbye is cut off', async (t) => {
  const { routes } = deferredHandler();
  const { port, server } = await startHttp(t, routes, { limits: { endMs: 2000 } });
  const client = await connectIdle('h2', port, '/hello');

  server.stopAccepting();
  await client.ended;

  await server.close(60_000); // The client never closes its side.
  client.destroy();
});

test('a request that its client resets with an error leaves the process and the session alone', async (t) => {
  const { routes, answers } = deferredHandler();
  const { port, lines } = await startHttp(t, routes);
  const client = await RawH2.open(port);
  client.send(h2.headers(1, fields('GET', '/held')));
  await until(() => answers.length === 1);

  client.send(h2.reset(1, code.internal), h2.headers(3, fields('GET', '/hello')));

  assert.deepEqual(await client.readJson(3), { hello: true });
  answers[0]?.(json(200, {}));
  await until(() => lines.some((line) => line['status'] === 499));
  assert.deepEqual(errorLines(lines), []);
  client.destroy();
});

test('an answer without a body that comes before the end of the request arrives', async (t) => {
  const { port } = await startHttp(t, deferredHandler().routes);
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

test('an answer over HTTP/2 has no header that belongs to a connection', async (t) => {
  const { routes } = deferredHandler();
  const { port } = await startHttp(t, routes);

  for (const path of ['/hello', '/nowhere']) {
    const { headers } = await ask('h2', port, 'GET', path);
    for (const name of ['connection', 'keep-alive', 'transfer-encoding', 'upgrade']) {
      assert.equal(headers[name], undefined);
    }
  }
});

test('a request may come with trailers', async (t) => {
  const { port } = await startHttp(t, [
    route('POST', '/echo', async (exchange) => json(200, { body: await exchange.body() })),
  ]);
  const client = await RawH2.open(port);

  const more = [['content-type', 'application/json']] as const;
  client.send(h2.headers(1, fields('POST', '/echo', more), flag.endHeaders));
  client.send(h2.data(1, '[1]'), h2.headers(1, [['checksum', '1']]));

  assert.deepEqual(await client.readJson(1), { body: [1] });
  client.destroy();
});

test('a new certificate is for new connections, and one that does not fit is refused', async (t) => {
  const { routes } = deferredHandler();
  const { port, server } = await startHttp(t, routes);
  const next = createSelfSigned(['localhost'], Date.now());
  const before = await connectIdle('h2', port);

  assert.throws(() => server.setCertificate(next.privateKey, testCertificate.cert));
  assert.equal(await fetchFingerprint(port), getFingerprint(testCertificate.cert));
  server.setCertificate(next.privateKey, next.certificate);

  assert.equal(await fetchFingerprint(port), getFingerprint(next.certificate));
  assert.equal(before.socket.destroyed, false);
  before.destroy();
});

test('a client chooses HTTP/2 first, gets HTTP/1.1 without a choice, and nothing for others', async (t) => {
  const { port } = await startHttp(t, deferredHandler().routes);
  const chosen = async (...protocols: string[]) => {
    const options = { port, host: '127.0.0.1', ALPNProtocols: protocols };
    const socket = connectTls({ ...options, rejectUnauthorized: false });
    t.after(() => socket.destroy());
    await once(socket, 'secureConnect');
    return socket.alpnProtocol;
  };

  assert.equal(await chosen('http/1.1', 'h2'), 'h2');
  assert.equal(await chosen('spdy/3', 'http/1.1'), 'http/1.1');
  assert.equal(await chosen(), false);
  await assert.rejects(chosen('spdy/3'), { code: 'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL' });
});

test('a port in use, an address not ours and a key that does not fit are refused', async (t) => {
  const { routes } = deferredHandler();
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
  await assert.rejects(startHttp(t, routes, { key }));
});

const getFingerprint = (pem: string) => new X509Certificate(pem).fingerprint256;

async function fetchFingerprint(port: number): Promise<string> {
  const socket = connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false });
  await once(socket, 'secureConnect');
  const { fingerprint256 } = socket.getPeerCertificate();
  socket.destroy();
  return fingerprint256;
}

/** A request on a connection of its own, and the way to leave. */
async function startRequest(protocol: Protocol, port: number, path: string): Promise<() => void> {
  const client = await openConnection(protocol, port);
  client.get(path);
  return () => client.tls.destroy();
}

/** A connection with nothing open: never used, or after one answer. It does not close its side. */
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
