import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { type TestContext, test } from 'node:test';
import { ask } from '../../../test/support/clients/ask.js';
import { protocols } from '../../../test/support/clients/exchange.js';
import { RawTls } from '../../../test/support/clients/raw-tls.js';
import { collectingLog } from '../../../test/support/recording/collecting-log.js';
import { startHttp } from '../../../test/support/servers/http-server.js';
import { until } from '../../../test/support/until.js';
import { toIpKey } from '../ip-key.js';
import { json } from '../reply.js';
import { route } from '../router.js';
import { ConnectionLimiter } from './connection-limiter.js';

function createLimiter({
  ipRate = { count: 3, perMs: 3000 } as { count: number; perMs: number } | null,
}) {
  const time = { now: 1000 };
  const lines: Record<string, unknown>[] = [];
  const limiter = new ConnectionLimiter({
    rate: { count: 5, perMs: 1000 },
    perIp: ipRate === null ? undefined : { rate: ipRate, openMax: 1e9 },
    log: collectingLog(lines),
    monotonicClock: () => time.now,
  });
  const tryAccept = (addresses: readonly string[]) =>
    addresses.map((one) => limiter.tryAccept(toIpKey(one)));
  return { limiter, time, lines, tryAccept };
}

test('an address may open a burst of connections, then one per interval of the rate', () => {
  const { limiter, time, tryAccept } = createLimiter({});

  assert.deepEqual(tryAccept(Array(4).fill('192.0.2.1')), [true, true, true, false]);
  time.now += 999;
  assert.equal(limiter.tryAccept('192.0.2.1'), false);
  time.now += 1;
  assert.deepEqual(tryAccept(['192.0.2.1', '192.0.2.1']), [true, false]);
});

test('each IPv6 /64 and each IPv4 address, also if IPv4-mapped, has its own connection rate', () => {
  const { tryAccept } = createLimiter({});

  const sameNetwork = ['2001:db8::1', '2001:db8::2', '2001:db8:0:0:1::', '2001:db8::3'];
  assert.deepEqual(tryAccept(sameNetwork), [true, true, true, false]);
  assert.deepEqual(tryAccept(['2001:db8:0:1::1', '::ffff:192.0.2.1']), [true, true]);
});

test('the total rate applies to all addresses; connections refused by the per-IP rate do not count towards it', () => {
  const { time, tryAccept } = createLimiter({});
  tryAccept(Array(100).fill('192.0.2.1'));

  const addresses = ['192.0.2.2', '192.0.2.3', '192.0.2.4'];
  assert.deepEqual(tryAccept(addresses), [true, true, false]);
  time.now += 200;
  assert.deepEqual(tryAccept(addresses), [true, false, false]);
});

test('behind a trusted proxy there is no connection rate per address', () => {
  const { tryAccept } = createLimiter({ ipRate: null });

  assert.deepEqual(tryAccept(Array(6).fill('192.0.2.1')), [true, true, true, true, true, false]);
});

test('report() logs all refusals since the last report in one line', () => {
  const { limiter, lines, tryAccept } = createLimiter({});
  limiter.report();
  tryAccept([...Array(10).fill('192.0.2.1'), '192.0.2.2', '192.0.2.3', '2001:db8::1']);

  limiter.report();
  limiter.report();

  assert.equal(limiter.refused, 8);
  const refused = { ACCEPT_IP_RATE: 7, ACCEPT_RATE: 1 };
  const line = { phrase: 'connections refused', refused, lastFrom: '2001:db8:0:0::/64' };
  assert.deepEqual(lines, [{ level: 'warn', ...line }]);
});

test('an address whose connections are all closed is no longer tracked', {
  skip: process.platform === 'linux' ? false : 'this system has one loopback address',
}, async (t) => {
  const { limiter } = createLimiter({ ipRate: { count: 100, perMs: 1000 } });
  const server = createServer((socket) => socket.on('error', () => {}).resume());
  t.after(() => server.close());
  limiter.attachTo(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo; // Safe: `server` listens on TCP.
  const addresses = ['127.0.0.1', '127.0.0.1', '127.0.0.2', '127.0.0.3', '127.0.0.4'];

  const clients = addresses.map((localAddress) =>
    connect({ port, host: '127.0.0.1', localAddress }).on('error', () => {}),
  );
  t.after(() => {
    for (const client of clients) client.destroy();
  });
  await until(() => limiter.openIpKeys === 4);
  clients[0]?.destroy();
  clients[2]?.destroy();
  await until(() => limiter.openIpKeys === 3);
  for (const client of clients) client.destroy();
  await until(() => limiter.openIpKeys === 0);
});

/** Starts a server with one route, `/hello`, and these limits. */
function startLimited(t: TestContext, limits: Parameters<typeof startHttp>[2]) {
  return startHttp(t, [route('GET', '/hello', () => json(200, { hello: true }))], limits);
}

for (const protocol of protocols) {
  test(`a connection over the rate is reset before TLS, and connections under the rate are served (${protocol})`, async (t) => {
    const acceptIpRate = { count: 3, perMs: 3_600_000 };
    const { server, port, lines } = await startLimited(t, {
      limits: { acceptIpRate },
      pingMs: 500,
    });
    const first = await RawTls.open(port, 'http/1.1');
    await ask(protocol, port, 'GET', '/hello');
    assert.equal((await ask(protocol, port, 'GET', '/hello')).status, 200);

    await assert.rejects(ask(protocol, port, 'GET', '/hello'), /ECONNRESET|socket hang up/);

    first.write('GET /hello HTTP/1.1\r\nhost: localhost\r\n\r\n');
    await first.until((received) => received.includes('{"hello":true}'));
    first.destroy();
    await until(() => lines.some(({ phrase }) => phrase === 'connections refused'));
    const line = lines.find(({ phrase }) => phrase === 'connections refused');
    assert.deepEqual(line?.['refused'], { ACCEPT_IP_RATE: 1 });
    await until(() => server.connections === 0);
  });
}

test('an address over its maximum of open connections is refused until one of them closes', async (t) => {
  const { server, port, lines } = await startLimited(t, { limits: { connectionsPerIpMax: 2 } });
  const open = [await RawTls.open(port, 'h2'), await RawTls.open(port, 'h2')];

  await assert.rejects(RawTls.open(port, 'h2'));
  open[0]?.destroy();
  await until(() => server.connections === 1);
  const third = await RawTls.open(port, 'h2');
  third.destroy();
  open[1]?.destroy();
  await until(() => server.connections === 0);
  await server.close(0);

  const line = lines.find(({ phrase }) => phrase === 'connections refused');
  assert.deepEqual(line?.['refused'], { MAX_CONNECTIONS_PER_IP: 1 });
});

test('behind a proxy only the total limits apply, and their refusals are reported', async (t) => {
  const acceptIpRate = { count: 1, perMs: 3_600_000 };
  const limits = { acceptIpRate, acceptRate: { count: 3, perMs: 3_600_000 }, connectionsMax: 2 };
  const { server, port, lines } = await startLimited(t, { limits, trustProxyHops: 1 });
  const open = [await RawTls.open(port, 'h2'), await RawTls.open(port, 'h2')];

  await assert.rejects(RawTls.open(port, 'h2'));
  for (const one of open) one.destroy();
  await until(() => server.connections === 0);
  assert.equal((await ask('h2', port, 'GET', '/hello')).status, 200);
  await assert.rejects(ask('h2', port, 'GET', '/hello'));
  await server.close(0);

  const reports = lines.filter(({ phrase }) => phrase === 'connections refused');
  assert.deepEqual(
    reports.map(({ refused }) => refused),
    [{ MAX_CONNECTIONS: 1, ACCEPT_RATE: 1 }],
  );
});
