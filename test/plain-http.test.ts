import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { EventSourceClient } from './support/clients/event-source.js';
import { protocols } from './support/clients/exchange.js';
import { H2Client } from './support/clients/h2-client.js';
import { ServerProcess } from './support/servers/server-process.js';
import { startSystem } from './support/servers/system.js';
import { until } from './support/until.js';

const noCurl =
  spawnSync('curl', ['--version']).error === undefined ? false : 'curl is not installed';

for (const protocol of protocols) {
  test(`without TLS, EventSource receives events over ${protocol} and resumes after a restart`, async (t) => {
    const system = await startSystem(t, { env: { TLS: 'off' } });
    const client = await system.connect();
    const url = system.url + (await client.streamPath('ada'));
    const page = new EventSourceClient(url, { protocol });
    system.onClose(() => page.source.close());
    await page.waitForOpenings(1);
    const first = await system.publish('ada', 'before');
    await page.until(() => page.ids.at(-1) === first || undefined);

    await system.restart();
    await page.waitForOpenings(2);
    const second = await system.publish('ada', 'after');
    await page.until(() => page.ids.at(-1) === second || undefined);

    assert.match(url, /^http:/);
    assert.deepEqual(page.dataByType('message'), ['before', 'after']);
    assert.deepEqual(page.openings[1], { resumed: true, reason: 'resumed', id: first });
  });
}

test('without TLS, a server prints an http URL, and curl reaches it over both protocols', {
  skip: noCurl,
}, async (t) => {
  const server = await ServerProcess.start(t, { env: { TLS: 'off' } });
  const ask = (...args: string[]) => {
    const format = ['--silent', '--write-out', ' %{http_version}'];
    return spawnSync('curl', [...format, ...args, `${server.url}/health/live`]).stdout.toString();
  };

  const url = server.lines.find(({ msg }) => msg === 'listening')?.['url'];
  assert.equal(url, server.url);
  assert.match(server.url, /^http:\/\/127\.0\.0\.1:\d+$/);
  assert.equal(ask('--http2-prior-knowledge'), '{"status":"ok"} 2');
  assert.equal(ask(), '{"status":"ok"} 1.1');
  assert.equal(ask('--http2'), '{"status":"ok"} 1.1'); // The upgrade to h2c is ignored.
  assert.equal(ask('--http1.0'), '{"status":"ok"} 1.1'); // The version of the response.
});

test('without TLS, SIGHUP reopens the log files and needs no certificate', async (t) => {
  const server = await ServerProcess.start(t, { env: { TLS: 'off' } });
  const { folder } = server.prepared;
  for (const name of ['server.cert', 'server.key']) rmSync(join(folder, name));
  const hasLine = (phrase: string) => server.lines.some(({ msg }) => msg === phrase);

  server.signal('SIGHUP');
  await until(() => hasLine('log files reopened'));

  assert.equal(await server.end('SIGTERM'), 0);
  await server.startOnSamePort();
  assert.equal(hasLine('certificate reload failed, keeping the previous one'), false);
});

test('a health check over HTTP/1.0 without Host is answered', async (t) => {
  const system = await startSystem(t, { env: { TLS: 'off' } });
  const { hostname: host, port } = new URL(system.url);

  for (const path of ['/health/live', '/health/ready']) {
    const socket = connect({ host, port: Number(port) });
    socket.write(`GET ${path} HTTP/1.0\r\n\r\n`);
    assert.match(await text(socket), /^HTTP\/1\.1 200 OK\r\n[\s\S]*"status":"ok"/);
  }
});

// [settings, whether browsers are told to use only HTTPS]
const hstsCases = [
  [{ TLS: 'on' }, true],
  [{ TLS: 'off' }, false],
  [{ TLS: 'off', TRUST_PROXY_HOPS: '1' }, true],
] as const;

for (const [env, isSent] of hstsCases) {
  const settings = JSON.stringify(env);
  test(`in production with ${settings}, responses ${isSent ? 'have' : 'lack'} Strict-Transport-Security`, async (t) => {
    const names = { ACCESS_TOKEN_AUDIENCE: 'test', ACCESS_TOKEN_ISSUER: 'test' };
    const system = await startSystem(t, { env: { NODE_ENV: 'production', ...names, ...env } });
    const client = await H2Client.connect(system.url);
    system.onClose(() => client.destroy());

    const { headers } = await client.ask('GET', '/health/live');

    assert.equal('strict-transport-security' in headers, isSent);
  });
}
