import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { HttpLimits } from '../src/http/limits/limits.js';
import { json, type Sink } from '../src/http/reply.js';
import { route, streamRoute } from '../src/http/router.js';
import * as h2 from './support/clients/raw-h2.js';
import { code, type Fields, fields, flag, headers, RawH2 } from './support/clients/raw-h2.js';
import { startHttp } from './support/servers/http-server.js';
import { until } from './support/until.js';

const reader = '192.0.2.1';
const visitor = '192.0.2.2';
const jsonType: Fields = [['content-type', 'application/json']];

/** Returns the fields of a request that a proxy forwards for a client. */
const forwarded = (client: string, method: string, path: string, more: Fields = []) =>
  fields(method, path, [['x-forwarded-for', client], ...more]);
/** Returns the id of the n-th stream of a connection, counted from 0. */
const getStreamId = (index: number) => 2 * index + 1;

interface ProxiedOptions {
  readonly limits?: Partial<HttpLimits>;
  /** Initial window of each stream of the proxy. */
  readonly windowBytes?: number;
}

/** Starts a server behind one proxy, and opens the proxy's connection with an event stream of `reader`. */
async function openProxied(
  t: TestContext,
  { limits = {}, windowBytes = 65_535 }: ProxiedOptions = {},
) {
  const sinks: Sink[] = [];
  const time = { now: 1000 };
  const routes = [
    route('GET', '/hello', () => json(200, { hello: true })),
    route('POST', '/echo', async (exchange) => json(200, { body: await exchange.body() })),
    route('GET', '/slow', async ({ signal }) => {
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
      return json(200, {});
    }),
    streamRoute('/stream', () => ({
      ...{ status: 200, headers: {} },
      open: (sink) => sinks.push(sink),
    })),
  ];
  const monotonicClock = () => time.now;
  const options = { trustProxyHops: 1, monotonicClock, limits };
  const { port, lines } = await startHttp(t, routes, options);
  const proxy = await RawH2.open(port, { windowBytes });
  t.after(() => proxy.destroy());
  proxy.send(headers(1, forwarded(reader, 'GET', '/stream')));
  await until(() => sinks.length === 1);
  let streams = 1;
  /** Sends a request of a client on the next stream; returns its id. */
  const send = (client: string, path: string) => {
    const streamId = getStreamId(streams);
    streams += 1;
    proxy.send(headers(streamId, forwarded(client, 'GET', path)));
    return streamId;
  };
  const countLines = (status: number) => lines.filter((line) => line['status'] === status).length;
  const abortRequests = async (client: string, count: number) => {
    const before = countLines(499);
    for (let index = 1; index <= count; index += 1) {
      proxy.send(h2.reset(send(client, '/slow'), code.cancel));
      if (index % 100 === 0) await ping(proxy); // From Node 22 on, a reset stream stays open for a turn.
    }
    await until(() => countLines(499) === before + count);
  };
  return { port, proxy, time, sinks, send, abortRequests };
}

/** Settles when the server has processed everything that was sent before. */
async function ping(proxy: RawH2): Promise<void> {
  const countAcks = () => proxy.frames.filter((frame) => frame.type === h2.type.ping).length;
  const before = countAcks();
  proxy.send(h2.ping());
  await proxy.frame(() => countAcks() > before);
}

// [what a client does, how often, the frames of the n-th time]; a connection of one client has lower limits.
const floods: readonly (readonly [string, number, (streamId: number) => Buffer[]])[] = [
  [
    'resets its requests',
    900, // Node 20 ends a connection after 1000.
    (id) => [headers(id, forwarded(visitor, 'GET', '/slow')), h2.reset(id, code.cancel)],
  ],
  [
    'resets its uploads',
    900,
    (id) => [
      headers(id, forwarded(visitor, 'POST', '/echo', jsonType), flag.endHeaders),
      h2.data(id, '{'),
      h2.reset(id, code.cancel),
    ],
  ],
  [
    'sends malformed requests',
    900,
    (id) => [headers(id, forwarded(visitor, 'GET', '/hello', [['Upper-Case', 'x']]))],
  ],
  [
    'sends too many header lines',
    300,
    (id) => {
      const lines: Fields = Array.from({ length: 130 }, (_, index) => [`a${index}`, 'b']);
      return [headers(id, forwarded(visitor, 'GET', '/hello', lines))];
    },
  ],
];

for (const [what, count, makeFrames] of floods) {
  test(`a client behind a proxy that ${what} does not end the streams of other clients`, async (t) => {
    const { proxy, sinks } = await openProxied(t);

    for (let index = 1; index <= count; index += 1) {
      proxy.send(...makeFrames(getStreamId(index)));
      if (index % 100 === 0) await ping(proxy); // A proxy has at most 128 streams open.
    }
    proxy.send(headers(getStreamId(count + 1), forwarded(reader, 'GET', '/hello')));

    assert.deepEqual(await proxy.readJson(getStreamId(count + 1)), { hello: true });
    assert.equal(sinks[0]?.closed, false);
  });
}

test('a proxy that opens too many streams before it knows the maximum keeps its connection', async (t) => {
  const { port, sinks } = await openProxied(t, { limits: { streamsPerH2SessionMax: 2 } });
  const second = await RawH2.open(port, { settings: false });
  t.after(() => second.destroy());

  const refused = Array.from({ length: 200 }, (_, index) => getStreamId(index + 2));
  second.send(headers(1, forwarded(reader, 'GET', '/stream')));
  second.send(headers(3, forwarded(reader, 'GET', '/slow')));
  second.send(...refused.map((id) => headers(id, forwarded(visitor, 'GET', '/hello'))));
  second.send(h2.reset(3, code.cancel));
  second.send(headers(501, forwarded(reader, 'GET', '/hello')));

  assert.deepEqual(await second.readJson(501), { hello: true });
  assert.deepEqual(
    sinks.map(({ closed }) => closed),
    [false, false],
  );
});

test('clients behind a proxy that read nothing do not prevent the requests of others', async (t) => {
  const limits = { streamsPerH2SessionMax: 500 };
  const { proxy, sinks, send } = await openProxied(t, { limits, windowBytes: 0 });
  for (let streams = 2; streams < 500; streams += 1) send(visitor, '/stream');
  await until(() => sinks.length === 499);

  for (const sink of sinks) sink.write(Buffer.alloc(65_536));
  await new Promise(setImmediate);
  const streamId = send(reader, '/hello');

  const answer = await proxy.frame((frame) => frame.streamId === streamId);
  assert.equal(answer?.type, h2.type.headers); // Not a reset.
});

test('a client behind a proxy that aborts too many requests gets 429, other clients do not', async (t) => {
  const { proxy, time, sinks, send, abortRequests } = await openProxied(t);
  const readName = async (streamId: number) => (await proxy.readJson(streamId))?.['name'];

  await abortRequests(visitor, 199);
  assert.equal(await readName(send(visitor, '/hello')), undefined);
  await abortRequests(visitor, 1);

  assert.equal(await readName(send(visitor, '/hello')), 'too_many_requests');
  assert.equal(await readName(send(reader, '/hello')), undefined);
  send(visitor, '/stream'); // The routes of streams have a rate of their own.
  await until(() => sinks.length === 2);
  time.now += 50; // One request every 50 ms.
  assert.equal(await readName(send(visitor, '/hello')), undefined);
});

test('aborted requests are not counted if the address of the client is unknown', async (t) => {
  const { proxy, send, abortRequests } = await openProxied(t);

  await abortRequests('unknown', 300);

  assert.deepEqual(await proxy.readJson(send('unknown', '/hello')), { hello: true });
});
