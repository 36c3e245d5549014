import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { connect, createServer, getCiphers, type SecureVersion, type TLSSocket } from 'node:tls';
import { createByOpenssl, testCertificate } from '../../../test/support/servers/certificate.js';
import { startHttp } from '../../../test/support/servers/http-server.js';

/** Lets a client or server of OpenSSL use weak suites. */
const weak = '@SECLEVEL=0';
const rsaCertificate = createByOpenssl({ key: 'RSA' });

function openConnection(
  port: number,
  version: SecureVersion,
  ciphers?: string,
): Promise<TLSSocket> {
  const socket = connect({
    ...{ port, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols: ['h2'] },
    ...{ minVersion: version, maxVersion: version },
    ...(ciphers !== undefined && { ciphers }),
  });
  return new Promise((resolve, reject) => {
    socket.once('secureConnect', () => resolve(socket)).once('error', reject);
  });
}

/** Returns the suites of TLS 1.2 that a server accepts. Tries all that this client has, one at a time. */
async function listAcceptedSuites(port: number): Promise<string[]> {
  const accepted: string[] = [];
  for (const suite of getCiphers().filter((name) => !name.startsWith('tls_'))) {
    try {
      (await openConnection(port, 'TLSv1.2', `${suite.toUpperCase()}:${weak}`)).destroy();
      accepted.push(suite);
    } catch {}
  }
  return accepted.sort();
}

/** Starts a server of Node that accepts all suites. */
async function startPermissiveServer(t: TestContext, certificate: { key: string; cert: string }) {
  const server = createServer({ ...certificate, ciphers: `ALL:${weak}` });
  server.on('secureConnection', (socket) => socket.on('error', () => {}));
  await once(server.listen(0, '127.0.0.1'), 'listening');
  t.after(() => server.close());
  return (server.address() as AddressInfo).port;
}

for (const [key, certificate, cbc] of [
  ['EC', testCertificate, 'ecdhe-ecdsa-aes128-sha256'],
  ['RSA', rsaCertificate, 'ecdhe-rsa-aes128-sha256'],
] as const) {
  test(`with an ${key} key, TLS 1.2 has only the suites that RFC 9113 permits: ECDHE with AES-GCM or ChaCha20`, async (t) => {
    const { port } = await startHttp(t, [], { certificate });
    const permissivePort = await startPermissiveServer(t, certificate);

    const suites = await listAcceptedSuites(port);

    const prefix = `ecdhe-${key === 'EC' ? 'ecdsa' : 'rsa'}`;
    assert.deepEqual(suites, [
      `${prefix}-aes128-gcm-sha256`,
      `${prefix}-aes256-gcm-sha384`,
      `${prefix}-chacha20-poly1305`,
    ]);
    assert.ok((await listAcceptedSuites(permissivePort)).includes(cbc));
  });

  test(`with an ${key} key, all three suites of TLS 1.3 are accepted, and TLS 1.1 is not`, async (t) => {
    const { port } = await startHttp(t, [], { certificate });

    for (const suite of [
      'TLS_AES_256_GCM_SHA384',
      'TLS_CHACHA20_POLY1305_SHA256',
      'TLS_AES_128_GCM_SHA256',
    ]) {
      const socket = await openConnection(port, 'TLSv1.3', suite);
      assert.equal(socket.getCipher().name, suite);
      assert.equal(socket.alpnProtocol, 'h2');
      socket.destroy();
    }
    await assert.rejects(openConnection(port, 'TLSv1.1', `ALL:${weak}`), {
      code: 'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION',
    });
  });
}

test('the suites stay restricted after the certificate is replaced', async (t) => {
  const { server, port } = await startHttp(t, [], { certificate: testCertificate });

  server.setCertificate(rsaCertificate);

  await assert.rejects(openConnection(port, 'TLSv1.2', 'ECDHE-RSA-AES128-SHA256'));
  const socket = await openConnection(port, 'TLSv1.2', 'ECDHE-RSA-AES128-GCM-SHA256');
  assert.equal(socket.getPeerCertificate().subject.CN, 'localhost');
  socket.destroy();
});

test('a client cannot renegotiate', async (t) => {
  const { port } = await startHttp(t, [], { certificate: testCertificate });
  const socket = await openConnection(port, 'TLSv1.2');
  const refused = once(socket, 'error');

  socket.renegotiate({ rejectUnauthorized: false }, (error) => {
    if (error === null) socket.emit('error', new Error('the server has renegotiated'));
  });

  const [error] = await refused;
  assert.equal(error.code, 'ERR_SSL_NO_RENEGOTIATION');
});
