import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { blockThread } from './support/block-thread.js';
import * as h2 from './support/clients/raw-h2.js';
import {
  code,
  data,
  type Fields,
  fields,
  flag,
  frame,
  headers,
  RawH2,
  type,
} from './support/clients/raw-h2.js';
import { usesTls, withTlsAll } from './support/servers/scheme.js';
import { startTargetServer } from './support/servers/target-server.js';
import { until } from './support/until.js';

const jsonType: Fields = [['content-type', 'application/json']];
const post = (id: number, extraHeaders: Fields = []) =>
  headers(id, fields('POST', '/echo', [...jsonType, ...extraHeaders]), flag.endHeaders);
const get = (id: number, path = '/hello', extraHeaders: Fields = []) =>
  headers(id, fields('GET', path, extraHeaders));
/** Returns the id of the n-th stream that a client opens, counted from 0. */
const getStreamId = (index: number) => 2 * index + 1;

/** Encodes a header list into as many frames as it needs. */
function longHeaders(list: Fields): Buffer[] {
  const block = h2.block(list);
  const frames: Buffer[] = [];
  for (let offset = 0; offset < block.length; offset += 16_384) {
    const isLast = offset + 16_384 >= block.length;
    const kind = offset === 0 ? type.headers : type.continuation;
    const flags = (offset === 0 ? flag.endStream : 0) | (isLast ? flag.endHeaders : 0);
    frames.push(frame(kind, flags, 1, block.subarray(offset, offset + 16_384)));
  }
  return frames;
}

const makeHeaders = (count: number): Fields =>
  Array.from({ length: count }, (_, n) => [`a${n}`, 'b']);

// [what is sent, how often, the frames of the n-th time]
const floods: readonly (readonly [string, number, (index: number) => Buffer[]])[] = [
  [
    'streams reset at once',
    3000,
    (n) => [get(getStreamId(n)), h2.reset(getStreamId(n), code.cancel)],
  ],
  [
    'uploads reset with an error',
    3000,
    (n) => [post(getStreamId(n)), h2.reset(getStreamId(n), code.internal)],
  ],
  ['streams left open', 2000, (n) => [post(getStreamId(n))]],
  ['settings', 20_000, () => [h2.settings([[4, 65_535]])]],
  ['pings', 50_000, () => [h2.ping()]],
  ['priorities', 20_000, (n) => [frame(type.priority, flag.none, getStreamId(n), Buffer.alloc(5))]],
  ['window updates', 20_000, () => [frame(type.windowUpdate, flag.none, 0, Buffer.of(0, 0, 0, 1))]],
  ['data frames without data', 20_000, (n) => [...(n === 0 ? [post(1)] : []), h2.data(1, '')]],
  [
    'continuations',
    20_000,
    (n) => [
      n === 0
        ? headers(1, fields('GET', '/hello'), flag.endStream)
        : frame(type.continuation, flag.none, 1, h2.block(makeHeaders(1))),
    ],
  ],
  [
    'continuations without content',
    20_000,
    (n) => [
      n === 0
        ? headers(1, fields('GET', '/hello'), flag.endStream)
        : frame(type.continuation, flag.none, 1),
    ],
  ],
];

for (const [what, count, makeFrames] of withTlsAll(floods)) {
  test(`a flood of ${what} does not affect other clients`, async (t) => {
    // Node 20 misses the disconnect of a client whose resets it no longer reads, so `idleMs` applies.
    const { port, assertHealthy } = await startTargetServer(t, { idleMs: 1500 });
    const client = await RawH2.open(port);

    for (let sent = 0; sent < count; sent += 500) {
      client.send(...Array.from({ length: 500 }, (_, index) => makeFrames(sent + index)).flat());
      await new Promise(setImmediate);
    }

    await assertHealthy(() => client.destroy());
  });
}

// [case, frames]; none of these is a valid request.
const malformed: readonly (readonly [string, Buffer[]])[] = [
  ['no path', [headers(1, fields('GET', '/').slice(0, 3))]],
  ['an empty path', [get(1, '')]],
  ['a path without a slash', [get(1, 'hello')]],
  ['the path * without OPTIONS', [get(1, '*')]],
  ['a path with a space', [get(1, '/a b')]],
  ['a path with NUL', [get(1, '/a\0b')]],
  ['two paths', [get(1, '/hello', [[':path', '/hello']])]],
  [
    'neither authority nor host',
    [
      headers(
        1,
        fields('GET', '/hello').filter(([name]) => name !== ':authority'),
      ),
    ],
  ],
  ['a name in upper case', [get(1, '/hello', [['A', 'b']])]],
  ['a connection header', [get(1, '/hello', [['connection', 'keep-alive']])]],
  ['an upgrade header', [get(1, '/hello', [['upgrade', 'websocket']])]],
  ['a transfer-encoding', [post(1, [['transfer-encoding', 'chunked']])]],
  [
    'two lengths',
    [
      post(1, [
        ['content-length', '1'],
        ['content-length', '2'],
      ]),
    ],
  ],
  ['a length that is not a number', [post(1, [['content-length', '1a']])]],
  ['one header line too many', [get(1, '/hello', makeHeaders(125))]],
  ['10,000 header lines', longHeaders([...fields('GET', '/hello'), ...makeHeaders(10_000)])],
  [
    'headers past their limit',
    longHeaders([...fields('GET', '/hello'), ['a', 'x'.repeat(16_384)]]),
  ],
  ['a stream id that only the server may use', [get(2)]],
  ['data on a stream never opened', [data(7, 'x')]],
  ['a reset of a stream never opened', [h2.reset(7, code.cancel)]],
  [
    'a window past its limit',
    [frame(type.windowUpdate, flag.none, 0, Buffer.of(127, 255, 255, 255))],
  ],
  ['a PUSH_PROMISE', [frame(5, flag.endHeaders, 1, Buffer.alloc(8))]],
  ['an invalid header block', [frame(type.headers, 5, 1, Buffer.alloc(5, 0xff))]],
  ['a frame past its limit', [frame(type.data, flag.none, 0, Buffer.alloc(20_000))]],
  ['settings out of range', [h2.settings([[4, 0xffff_ffff]])]],
  ['HTTP/1.1', [Buffer.from('GET / HTTP/1.1\r\nhost: localhost\r\n\r\n')]],
];

for (const [what, frames] of withTlsAll(malformed)) {
  test(`malformed HTTP/2 (${what}) resets the stream or ends the connection, and runs no handler`, async (t) => {
    // Data on a stream that was never opened is ignored; the connection ends because it is idle.
    const { port, lines, assertHealthy } = await startTargetServer(t, { idleMs: 1500 });
    const client = await RawH2.open(port);

    client.send(...frames);

    const endFrame = await client.frame(
      (received) => received.type === type.reset || received.type === type.goaway,
    );
    assert.ok(endFrame);
    assert.deepEqual(lines, []);
    await assertHealthy(() => client.destroy());
  });
}

// [case, frames, status, failure name]
const refused: readonly (readonly [string, Buffer[], number, string])[] = [
  [
    'CONNECT',
    [
      headers(1, [
        [':method', 'CONNECT'],
        [':authority', 'localhost:1'],
      ]),
    ],
    501,
    'not_implemented',
  ],
  ['TRACE', [headers(1, fields('TRACE', '/hello'))], 501, 'not_implemented'],
  ['an unknown method', [headers(1, fields('BREW', '/hello'))], 501, 'not_implemented'],
  ['a method in lower case', [headers(1, fields('get', '/hello'))], 501, 'not_implemented'],
  ['a path that is not ASCII', [get(1, '/caf\xe9')], 400, 'invalid_request'],
  [
    'a host other than the authority',
    [get(1, '/hello', [['host', 'elsewhere']])],
    400,
    'invalid_request',
  ],
  [
    'a host with another port than the authority',
    [get(1, '/hello', [['host', 'localhost:444']])],
    400,
    'invalid_request',
  ],
  ['an upload over the limit', [post(1), data(1, 'x'.repeat(9000))], 413, 'payload_too_large'],
  [
    'an upload with a content-length over the limit',
    [post(1, [['content-length', '9000']])],
    413,
    'payload_too_large',
  ],
  ['an upload that never ends', [post(1), data(1, '[1')], 408, 'request_timeout'],
];

for (const [what, frames, status, name] of withTlsAll(refused)) {
  test(`${what} gets a complete ${status} response without waiting for the rest`, async (t) => {
    const limits = status === 408 ? { bodyMs: 400 } : {};
    const { port, bodies, assertHealthy } = await startTargetServer(t, limits);
    const client = await RawH2.open(port);

    client.send(...frames);

    const body = await client.readJson(1);
    assert.deepEqual([body?.['status'], body?.['name']], [status, name]);
    if (![400, 501].includes(status)) assert.equal(await client.waitForReset(1), code.none); // RFC 9113 §8.1
    assert.deepEqual(bodies, []);
    await assertHealthy(() => client.destroy());
  });
}

test('a host that differs from the authority only in case or the default port is accepted', async (t) => {
  const { port, assertHealthy } = await startTargetServer(t);
  const client = await RawH2.open(port);
  const defaultPort = usesTls ? ':443' : ':80';
  // [:authority, host]
  const pairs = [
    ['localhost', 'LOCALHOST'],
    ['LocalHost', `localhost${defaultPort}`],
    [`localhost${defaultPort}`, 'localhost'],
  ] as const;

  for (const [index, [authority, host]] of pairs.entries()) {
    const id = getStreamId(index);
    const list = fields('GET', '/hello', [['host', host]]);
    client.send(
      headers(
        id,
        list.map(([name, value]) => [name, name === ':authority' ? authority : value]),
      ),
    );
    assert.deepEqual(await client.readJson(id), { hello: true });
  }
  await assertHealthy(() => client.destroy());
});

test('header lines and header bytes up to their limits are accepted', async (t) => {
  const { port } = await startTargetServer(t);
  const client = await RawH2.open(port);

  client.send(get(1, '/hello', makeHeaders(124)));
  client.send(get(3, '/hello', [['a', 'x'.repeat(15_000)]]));

  assert.deepEqual(await client.readJson(1), { hello: true });
  assert.deepEqual(await client.readJson(3), { hello: true });
});

test('the limit of header bytes applies even to a client that never acknowledges the SETTINGS frame', async (t) => {
  const { port, assertHealthy } = await startTargetServer(t);
  const client = await RawH2.open(port, { settings: false });

  client.send(...longHeaders([...fields('GET', '/hello'), ['a', 'x'.repeat(16_384)]]));

  assert.equal((await client.readJson(1))?.['name'], 'headers_too_large');
  await assertHealthy(() => client.destroy());
});

// [case, how a half-sent upload ends]
const truncations: readonly (readonly [string, (client: RawH2) => void])[] = [
  ['a reset with CANCEL', (client) => client.send(h2.reset(1, code.cancel))],
  ['a reset with INTERNAL_ERROR', (client) => client.send(h2.reset(1, code.internal))],
  ['a reset with NO_ERROR', (client) => client.send(h2.reset(1, code.none))],
  ['a connection that ends', (client) => client.tls.socket.end()],
  ['a connection that breaks', (client) => client.destroy()],
  [
    'a GOAWAY from the client',
    (client) => client.send(frame(type.goaway, flag.none, 0, Buffer.alloc(8))) ?? client.destroy(),
  ],
];

for (const [what, end] of truncations) {
  test(`an HTTP/2 upload cut short by ${what} is not processed`, async (t) => {
    const { port, bodies, lines, assertHealthy } = await startTargetServer(t);
    const client = await RawH2.open(port);
    client.send(post(1), data(1, '[1]')); // Valid JSON, but the body has not ended.
    client.send(h2.ping());
    await client.frame((received) => received.type === type.ping);

    end(client);

    await until(() => lines.some(({ phrase }) => phrase === 'request'));
    assert.equal(lines.find(({ phrase }) => phrase === 'request')?.['status'], 499);
    assert.deepEqual(bodies, []);
    await assertHealthy(() => client.destroy());
  });
}

for (const [what, length] of [
  ['shorter', 4],
  ['longer', 2],
] as const) {
  test(`an upload that is ${what} than its content-length is rejected`, async (t) => {
    const { port, bodies, assertHealthy } = await startTargetServer(t);
    const client = await RawH2.open(port);

    client.send(post(1, [['content-length', String(length)]]), data(1, '[1]', flag.endStream));

    await client.frame((received) => received.type === type.reset || received.type === type.goaway);
    assert.deepEqual(bodies, []);
    await assertHealthy(() => client.destroy());
  });
}

// These tests wait for time limits, so they run at the same time.
describe('time limits over HTTP/2', { concurrency: true }, () => {
  test('a response is reset when the client never opens its window', async (t) => {
    const { port, assertHealthy } = await startTargetServer(t, { endMs: 3000 });
    const client = await RawH2.open(port, { windowBytes: 0 });

    client.send(get(1, '/big'));

    assert.equal(await client.waitForReset(1), code.cancel);
    client.send(get(3, '/never')); // The connection stays usable.
    await assertHealthy(() => client.destroy());
  });

  test('a client that sends nothing after the handshake is disconnected', async (t) => {
    const { port, server } = await startTargetServer(t, { idleMs: 1500, endMs: 300 });
    const client = await RawH2.open(port);

    // The client never closes its side, so the GOAWAY alone would not end the connection.
    assert.ok(await client.frame((received) => received.type === type.goaway));
    await until(() => server.connections === 0);
  });

  test('a client that only pings is disconnected, before and after a request', async (t) => {
    const { port, server } = await startTargetServer(t, { idleMs: 1500, endMs: 300 });
    const clients = [await RawH2.open(port), await RawH2.open(port)];
    const pinging = setInterval(() => {
      for (const client of clients) client.send(h2.ping());
    }, 20);
    t.after(() => clearInterval(pinging));
    clients[1]?.send(get(1));

    await until(() => server.connections === 0);
  });

  test('a client that answers pings and sends nothing else stays connected', async (t) => {
    const { port, server, sinks } = await startTargetServer(t, {}, 500);
    const client = await RawH2.open(port);
    client.send(get(1, '/stream'));

    await client.frame((received) => received.type === type.ping);
    for (let count = 1; count <= 6; count += 1) {
      await until(
        () => client.frames.filter((received) => received.type === type.ping).length > count,
      );
    }

    assert.equal(sinks[0]?.closed, false);
    assert.equal(server.connections, 1);
  });
});

test('a ping answered while the event loop was blocked counts as answered', async (t) => {
  const { port, sinks } = await startTargetServer(t, {}, 200);
  const client = await RawH2.open(port);
  client.send(get(1, '/stream'));

  await client.frame((received) => received.type === type.ping); // The acknowledgement of this ping is in flight.
  blockThread(600);
  const pings = () => client.frames.filter((received) => received.type === type.ping).length;
  await until(() => pings() >= 3 || sinks[0]?.closed === true);

  assert.equal(sinks[0]?.closed, false);
  client.destroy();
});

test('a request that arrives while the event loop is blocked is answered', async (t) => {
  const { port } = await startTargetServer(t, { idleMs: 500 });
  const client = await RawH2.open(port);
  client.send(h2.ping());
  await client.frame((received) => received.type === type.ping);
  blockThread(100); // Makes the next check for progress due, which then runs within two iterations.
  for (let turn = 0; turn < 2; turn += 1) await new Promise(setImmediate);

  client.send(get(1));
  blockThread(1000);

  assert.deepEqual(await client.readJson(1), { hello: true });
  client.destroy();
});

test('a half-open connection with a stream is closed within two ping intervals', async (t) => {
  const { port, server, sinks } = await startTargetServer(t, {}, 100);
  const client = await RawH2.open(port, { pings: false });
  client.send(get(1, '/stream'));
  await until(() => sinks.length === 1);
  let closes = 0;
  sinks[0]?.onClose(() => {
    closes += 1;
  });

  await client.ended;

  assert.equal(client.frames.filter((received) => received.type === type.ping).length, 1);
  await until(() => server.connections === 0);
  assert.equal(closes, 1);
});
