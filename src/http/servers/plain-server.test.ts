import { connect, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import {
  data,
  fields,
  flag,
  headers,
  ping,
  preface,
  settings,
} from '../../../test/support/clients/raw-h2.js';
import { startHttp } from '../../../test/support/servers/http-server.js';
import { until } from '../../../test/support/until.js';
import type { HttpLimits } from '../limits/limits.js';
import { json } from '../reply.js';
import { route } from '../router.js';

// These tests cover how the first bytes select the protocol. `test/without-tls.test.ts` runs the tests of
// HTTP/1.1 and HTTP/2 again without TLS.

const routes = [
  route('GET', '/protocol', ({ protocol }) => json(200, { protocol })),
  route('POST', '/length', async (exchange) => {
    const body = await exchange.body({ bytesMax: 1_000_000 });
    return json(200, { protocol: exchange.protocol, length: String(body).length });
  }),
];

const startPlain = (t: TestContext, limits: Partial<HttpLimits> = {}) =>
  startHttp(t, routes, { certificate: undefined, limits });

/** Connects over TCP and collects what the server sends. */
function openTcp(t: TestContext, port: number): { socket: Socket; received: () => string } {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true, allowHalfOpen: true });
  let received = '';
  socket.setEncoding('latin1').on('data', (text: string) => {
    received += text;
  });
  socket.on('error', () => {}); // The server may reset the connection.
  t.after(() => socket.destroy());
  return { socket, received: () => received };
}

async function writeSlowly(socket: Socket, bytes: Buffer): Promise<void> {
  for (const byte of bytes) {
    await new Promise((resolve) => socket.write(Buffer.of(byte), resolve));
    await new Promise(setImmediate);
  }
}

const http1Get = Buffer.from('GET /protocol HTTP/1.1\r\nhost: localhost\r\n\r\n');
const h2Get = Buffer.concat([preface, settings([]), headers(1, fields('GET', '/protocol'))]);
const large = JSON.stringify('x'.repeat(300_000));
const http1Post = Buffer.from(
  `POST /length HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: ${large.length}\r\n\r\n${large}`,
);
const h2Post = Buffer.concat([
  preface,
  settings([]),
  ...Array.from({ length: 500 }, ping), // About 8 KiB, which arrive in one chunk with the preface.
  headers(1, fields('POST', '/length', [['content-type', 'application/json']]), flag.endHeaders),
  data(1, '"x"', flag.endStream),
]);

// [protocol, small request, large request, length of the text in the large request's body]
const requests = [
  ['http/1.1', http1Get, http1Post, 300_000],
  ['h2', h2Get, h2Post, 1],
] as const;

for (const [protocol, get, post, length] of requests) {
  test(`without TLS, a request over ${protocol} is answered whether its bytes arrive together or one by one`, async (t) => {
    const { port } = await startPlain(t);
    const [together, oneByOne] = [openTcp(t, port), openTcp(t, port)];

    together.socket.write(get);
    await writeSlowly(oneByOne.socket, get);

    const body = JSON.stringify({ protocol });
    await until(() => together.received().includes(body));
    await until(() => oneByOne.received().includes(body));
  });

  test(`without TLS, data in the same write as the first bytes is read completely over ${protocol}`, async (t) => {
    const { port } = await startPlain(t);
    const { socket, received } = openTcp(t, port);

    socket.write(post);

    await until(() => received().includes(JSON.stringify({ protocol, length })));
  });
}

test('without TLS, a request that shares its first bytes with the HTTP/2 preface is handled as HTTP/1.1', async (t) => {
  const { port } = await startPlain(t);
  const { socket, received } = openTcp(t, port);

  await writeSlowly(socket, Buffer.from('PROPFIND /protocol HTTP/1.1\r\nhost: localhost\r\n\r\n'));

  await until(() => /^HTTP\/1\.1 501 [\s\S]*"not_implemented"/.test(received()));
});

for (const [what, bytes] of [
  ['nothing', ''],
  ['a part of the preface', 'PRI * HTTP/2.0\r\n'],
] as const) {
  test(`without TLS, a client that sends ${what} gets 408 after the handshake timeout`, async (t) => {
    const { port, server } = await startPlain(t, { handshakeMs: 300, endMs: 300 });
    const { socket, received } = openTcp(t, port);
    socket.write(bytes);

    await until(() => received().startsWith('HTTP/1.1 408 '));
    await until(() => server.connections === 0); // Although the client does not close its side.
  });
}

test('without TLS, a connection that the client closes before its protocol is known is closed at once', async (t) => {
  const { port, server } = await startPlain(t, { handshakeMs: 3_600_000, idleMs: 3_600_000 });
  const ends: ((socket: Socket) => unknown)[] = [
    (socket) => socket.end(),
    (socket) => socket.end('PRI'),
    (socket) => socket.resetAndDestroy(),
  ];

  for (const end of ends) {
    const { socket } = openTcp(t, port);
    await until(() => server.connections === 1);
    end(socket);
    await until(() => server.connections === 0);
  }
});

test('without TLS, a server that stops closes a connection on which nothing has arrived', async (t) => {
  const { port, server } = await startPlain(t, { handshakeMs: 3_600_000 });
  const { socket } = openTcp(t, port);
  await until(() => server.connections === 1);

  await server.close(3_600_000);

  await until(() => socket.readableEnded || socket.destroyed);
});
