import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { connect as connectTcp, type Socket } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { H2Client } from './support/clients/h2-client.js';
import { recordSecret } from './support/recording/record.js';
import { createByOpenssl, testCertificate } from './support/servers/certificate.js';
import { type System, startSystem } from './support/servers/system.js';
import { withDeadline } from './support/with-deadline.js';

async function createMetricsKey(system: System): Promise<string> {
  const { key } = await system.runAdmin(({ apiKeys }) =>
    apiKeys.create({ name: 'prometheus', scopes: ['metrics'] }),
  );
  recordSecret(key);
  return key;
}

/** Returns the samples by name with labels, for example `herald_streams` or `x_total{reason="client"}`. */
async function readSamples(client: H2Client, bearer: string): Promise<ReadonlyMap<string, number>> {
  const { status, headers, text } = await client.ask('GET', '/metrics', { bearer });
  assert.equal(status, 200);
  assert.match(headers['content-type'] ?? '', /^text\/plain; version=0\.0\.4/);
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    lines.map((line) => {
      const [, name = '', value = ''] = /^(\S+(?:\{.*\})?) (\S+)$/.exec(line) ?? [];
      return [name, Number(value)] as const;
    }),
  );
}

test('metrics report streams, events, requests and the process', async (t) => {
  const system = await startSystem(t, { env: { MAX_STREAMS_PER_USER: '1' } });
  const key = await createMetricsKey(system);
  const client = await system.connect();
  const stream = await client.listen('ada');
  await system.publish('all', 'one');
  await system.publish('bob', 'for a user without a stream');
  await stream.event('message');
  const refused = await client.openStream(await client.streamPath('ada'));
  await refused.event('stream.close');

  const samplesWhileOpen = await readSamples(client, key);

  assert.equal(samplesWhileOpen.get('herald_streams'), 1);
  assert.equal(samplesWhileOpen.get('herald_stream_users'), 1);
  assert.equal(samplesWhileOpen.get('herald_deliveries_total'), 1);
  assert.equal(samplesWhileOpen.get('herald_event_log_position'), 2);
  assert.equal(samplesWhileOpen.get('herald_publishes_waiting'), 0);
  assert.equal(samplesWhileOpen.get('herald_streams_opened_total{start="fresh"}'), 1);
  assert.equal(samplesWhileOpen.get('herald_streams_refused_total{reason="too_many_streams"}'), 1);
  const published =
    'herald_http_request_duration_seconds_count{method="POST",route="/events",status="201"}';
  assert.equal(samplesWhileOpen.get(published), 2);
  assert.ok((samplesWhileOpen.get('herald_connections') ?? 0) >= 2);
  assert.equal(samplesWhileOpen.get('herald_connections_refused_total'), 0);
  assert.equal(samplesWhileOpen.get('herald_clock_offset_seconds'), 0);
  assert.ok((samplesWhileOpen.get('process_resident_memory_bytes') ?? 0) > 1e6);

  await client.ask('POST', '/logout', { bearer: await client.accessToken('ada') });
  await stream.ended();
  const samplesAfterClose = await readSamples(client, key);

  assert.equal(samplesAfterClose.get('herald_streams'), 0);
  assert.equal(samplesAfterClose.get('herald_event_log_position'), 3); // The logout is an entry, too.
  assert.equal(samplesAfterClose.get('herald_streams_closed_total{reason="revoked"}'), 1);
});

test('a metric reports the expiry of the certificate and changes with a reload; without TLS it is missing', async (t) => {
  const name = 'herald_certificate_expiry_timestamp_seconds';
  const system = await startSystem(t);
  const key = await createMetricsKey(system);
  const client = await system.connect();
  const getExpirySeconds = (pem: string) => Date.parse(new X509Certificate(pem).validTo) / 1000;

  assert.equal((await readSamples(client, key)).get(name), getExpirySeconds(testCertificate.cert));
  const replacement = createByOpenssl({ days: 90 });
  writeFileSync(join(system.folder, 'server.key'), replacement.key);
  writeFileSync(join(system.folder, 'server.cert'), replacement.cert);
  await system.app.reloadCertificate();
  assert.equal((await readSamples(client, key)).get(name), getExpirySeconds(replacement.cert));

  await system.stop();
  await system.startOnSamePort({ TLS: 'off' });
  const plainClient = await H2Client.connect(system.url.replace('https:', 'http:'));
  t.after(() => plainClient.destroy());
  assert.equal((await readSamples(plainClient, key)).has(name), false);
});

test('connections closed on protocol errors are counted by layer', async (t) => {
  const system = await startSystem(t);
  const key = await createMetricsKey(system);
  const client = await system.connect();
  const { port } = new URL(system.url);
  await waitForClose(connectTcp(Number(port), '127.0.0.1'), 'GET / HTTP/1.1\r\n\r\n'); // No TLS.
  const overTls = () =>
    connectTls({ host: '127.0.0.1', port: Number(port), rejectUnauthorized: false });
  await waitForClose(overTls(), 'this is not HTTP\r\n\r\n');
  await waitForClose(overTls(), `GET / HTTP/1.1\r\nhost: a\r\nlong: ${'x'.repeat(70_000)}\r\n\r\n`);

  const samples = await readSamples(client, key);

  assert.equal(samples.get('herald_connections_unreadable_total{layer="tls"}'), 1);
  assert.equal(samples.get('herald_connections_unreadable_total{layer="http1"}'), 2);
});

/** Sends text and resolves when the server has closed the connection. */
function waitForClose(socket: Socket, text: string): Promise<void> {
  socket.on('error', () => {}); // A reset closes the connection, too.
  socket.resume();
  socket.write(text);
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  return withDeadline(
    closed,
    `the end of the connection after ${JSON.stringify(text.slice(0, 80))}`,
  );
}

test('clients cannot create metric labels', async (t) => {
  const system = await startSystem(t);
  const key = await createMetricsKey(system);
  const client = await system.connect();
  for (const method of ['BREW', 'WHEN']) await client.ask(method, '/pot/one');
  for (const path of ['/pot/two', '/pot/three']) await client.ask('GET', path);

  const samples = await readSamples(client, key);

  const name = 'herald_http_request_duration_seconds_count';
  assert.equal(samples.get(`${name}{method="other",route="(none)",status="501"}`), 2);
  assert.equal(samples.get(`${name}{method="GET",route="(none)",status="404"}`), 2);
  assert.doesNotMatch([...samples.keys()].join(), /pot|BREW/);
});

test('GET /metrics requires a key with the scope metrics', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const getStatus = async (bearer?: string) =>
    (await client.ask('GET', '/metrics', bearer === undefined ? {} : { bearer })).status;

  assert.equal(await getStatus(), 401);
  assert.equal(await getStatus(await client.accessToken('ada')), 401);
  assert.equal(await getStatus(system.apiKey), 403);
  assert.equal(await getStatus(await createMetricsKey(system)), 200);
});
