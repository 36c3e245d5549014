import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { ask } from '../../../test/support/clients/ask.js';
import { protocols } from '../../../test/support/clients/exchange.js';
import { RawTls } from '../../../test/support/clients/raw-tls.js';
import { collectingLog } from '../../../test/support/recording/collecting-log.js';
import { startHttp } from '../../../test/support/servers/http-server.js';
import { until } from '../../../test/support/until.js';
import { ipKeyOf } from '../ip-key.js';
import { json } from '../reply.js';
import { route } from '../router.js';
import { AcceptLimit } from './connection-limiter.js';

function limitOf({
  ipRate = { count: 3, perMs: 3000 } as { count: number; perMs: number } | null,
}) {
  const time = { now: 1000 };
  const lines: Record<string, unknown>[] = [];
  const limit = new AcceptLimit({
    rate: { count: 5, perMs: 1000 },
    perPlace: ipRate === null ? undefined : { rate: ipRate, openMax: 1e9 },
    log: collectingLog(lines),
    clock: () => time.now,
  });
  const admitted = (addresses: readonly string[]) =>
    addresses.map((one) => limit.admits(ipKeyOf(one)));
  return { limit, time, lines, admitted };
}

test('a place may open so many connections at once, then one whenever its turn has come', () => {
  const { limit, time, admitted } = limitOf({});

  assert.deepEqual(admitted(Array(4).fill('192.0.2.1')), [true, true, true, false]);
  time.now += 999;
  assert.equal(limit.admits('192.0.2.1'), false);
  time.now += 1;
  assert.deepEqual(admitted(['192.0.2.1', '192.0.2.1']), [true, false]);
});

test('a place is an IPv4 address however it is written, or a /64 of IPv6', () => {
  const { admitted } = limitOf({});

  const same = ['2001:db8::1', '2001:db8::2', '2001:db8:0:0:1::', '2001:db8::3'];
  assert.deepEqual(admitted(same), [true, true, true, false]);
  assert.deepEqual(admitted(['2001:db8:0:1::1', '::ffff:192.0.2.1']), [true, true]);
});

test('all places together may open so many, and what one is refused takes from nobody', () => {
  const { time, admitted } = limitOf({});
  admitted(Array(100).fill('192.0.2.1'));

  const places = ['192.0.2.2', '192.0.2.3', '192.0.2.4'];
  assert.deepEqual(admitted(places), [true, true, false]);
  time.now += 200;
  assert.deepEqual(admitted(places), [true, false, false]);
});

test('behind a proxy of ours its address has no limit of its own', () => {
  const { admitted } = limitOf({ ipRate: null });

  assert.deepEqual(admitted(Array(6).fill('192.0.2.1')), [true, true, true, true, true, false]);
});

test('what was refused is told in one line, and once', () => {
  const { limit, lines, admitted } = limitOf({});
  limit.report();
  admitted([...Array(10).fill('192.0.2.1'), '192.0.2.2', '192.0.2.3', '2001:db8::1']);

  limit.report();
  limit.report();

  assert.equal(limit.refused, 8);
  const refused = { ACCEPT_IP_RATE: 7, ACCEPT_RATE: 1 };
  const line = { phrase: 'connections refused', refused, lastFrom: '2001:db8:0:0::/64' };
  assert.deepEqual(lines, [{ level: 'warn', ...line }]);
});

/** A server that takes three connections in the time of a test. */
function startStingy(t: TestContext, limits: Parameters<typeof startHttp>[2]) {
  return startHttp(t, [route('GET', '/hello', () => json(200, { hello: true }))], limits);
}

for (const protocol of protocols) {
  test(`over the rate a connection is reset before its TLS, under it all is as ever (${protocol})`, async (t) => {
    const acceptIpRate = { count: 3, perMs: 3_600_000 };
    const { server, port, lines } = await startStingy(t, { limits: { acceptIpRate }, pingMs: 500 });
    const first = await RawTls.open(port, 'http/1.1');
    await ask(protocol, port, 'GET', '/hello');
    assert.equal((await ask(protocol, port, 'GET', '/hello')).status, 200);

    await assert.rejects(ask(protocol, port, 'GET', '/hello'), /ECONNRESET|socket hang up/);

    first.write('GET /hello HTTP/1.1\r\nhost: localhost\r\n\r\n');
    await first.until((received) => received.includes('{"hello":true}'));
    first.destroy();
    await until(() => lines.some(({ phrase }) => phrase === 'connections refused'));
    const told = lines.find(({ phrase }) => phrase === 'connections refused');
    assert.deepEqual(told?.['refused'], { ACCEPT_IP_RATE: 1 });
    await until(() => server.connections === 0);
  });
}

test('one address has so many connections at a time, and one that closed makes room', async (t) => {
  const { server, port, lines } = await startStingy(t, { limits: { connectionsPerIpMax: 2 } });
  const open = [await RawTls.open(port, 'h2'), await RawTls.open(port, 'h2')];

  await assert.rejects(RawTls.open(port, 'h2'));
  open[0]?.destroy();
  await until(() => server.connections === 1);
  const third = await RawTls.open(port, 'h2');
  third.destroy();
  open[1]?.destroy();
  await until(() => server.connections === 0);
  await server.close(0);

  const told = lines.find(({ phrase }) => phrase === 'connections refused');
  assert.deepEqual(told?.['refused'], { MAX_CONNECTIONS_PER_IP: 1 });
});

test('behind a proxy only the rate in all counts, and the most connections are told likewise', async (t) => {
  const acceptIpRate = { count: 1, perMs: 3_600_000 };
  const limits = { acceptIpRate, acceptRate: { count: 3, perMs: 3_600_000 }, connectionsMax: 2 };
  const { server, port, lines } = await startStingy(t, { limits, trustProxyHops: 1 });
  const open = [await RawTls.open(port, 'h2'), await RawTls.open(port, 'h2')];

  await assert.rejects(RawTls.open(port, 'h2'));
  for (const one of open) one.destroy();
  await until(() => server.connections === 0);
  assert.equal((await ask('h2', port, 'GET', '/hello')).status, 200);
  await assert.rejects(ask('h2', port, 'GET', '/hello'));
  await server.close(0);

  const told = lines.filter(({ phrase }) => phrase === 'connections refused');
  assert.deepEqual(
    told.map(({ refused }) => refused),
    [{ MAX_CONNECTIONS: 1, ACCEPT_RATE: 1 }],
  );
});
