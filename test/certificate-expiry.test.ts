import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { connect } from 'node:tls';
import { collectingLog } from './support/recording/collecting-log.js';
import { createByOpenssl, testCertificate } from './support/servers/certificate.js';
import { ServerProcess } from './support/servers/server-process.js';
import { startSystem } from './support/servers/system.js';
import { until } from './support/until.js';

const dayMs = 86_400_000;

/** Replaces the certificate and the key in the folder of a test server. */
function store(folder: string, { key, cert }: { key: string; cert: string }): void {
  writeFileSync(join(folder, 'server.key'), key);
  writeFileSync(join(folder, 'server.cert'), cert);
}

/** Returns the fingerprint of the certificate that a new connection gets. */
async function fetchFingerprint(url: string): Promise<string> {
  const { hostname: host, port } = new URL(url);
  const socket = connect({ host, port: Number(port), rejectUnauthorized: false });
  await once(socket, 'secureConnect');
  const { fingerprint256 } = socket.getPeerCertificate();
  socket.destroy();
  return fingerprint256;
}

test('after SIGHUP, a certificate that expires within 30 days is reported', async (t) => {
  const server = await ServerProcess.start(t);
  const phrases = () => server.lines.map(({ msg }) => msg);

  store(server.prepared.folder, createByOpenssl({ days: 10 }));
  server.signal('SIGHUP');
  await until(() => phrases().includes('log files reopened and certificate reloaded'));

  const warnings = server.lines.filter(({ msg }) => msg === 'certificate expires soon');
  assert.deepEqual(
    warnings.map(({ level, days }) => [level, days]),
    [['warn', 9]], // Less than ten days from now on.
  );
});

test('a running server renews its generated certificate, uses it for new connections and keeps it at the next start', async (t) => {
  const lines: Record<string, unknown>[] = [];
  const time = { aheadMs: 0 };
  const wallClock = () => Date.now() + time.aheadMs;
  const system = await startSystem(t, { log: collectingLog(lines), wallClock });
  const old = new X509Certificate(testCertificate.cert).fingerprint256;
  assert.equal(await fetchFingerprint(system.url), old);

  time.aheadMs = 368 * dayMs;
  const phrase = 'development certificate renewed, clients must trust it again';
  await until(() => lines.some((line) => line['phrase'] === phrase));

  const renewed = await fetchFingerprint(system.url);
  assert.notEqual(renewed, old);
  const stored = new X509Certificate(readFileSync(join(system.folder, 'server.cert')));
  assert.equal(renewed, stored.fingerprint256);
  await system.restart();
  assert.equal(await fetchFingerprint(system.url), renewed);
});
