import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createSecureServer } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TLSSocket } from 'node:tls';
import { createByOpenssl } from '../../test/support/servers/certificate.js';
import { withDeadline } from '../../test/support/with-deadline.js';
import { createSelfSigned, isGenerated, listHosts } from './self-signed.js';

const hosts = ['localhost', '127.0.0.1', '::1', '2001:db8::5:0:1', '::ffff:10.0.0.1', '*.a.test'];

test('a self-signed certificate is valid for exactly the given hosts', () => {
  const certificate = new X509Certificate(createSelfSigned(hosts, Date.now()).certificate);

  assert.equal(certificate.checkHost('localhost'), 'localhost');
  assert.equal(certificate.checkHost('b.a.test'), '*.a.test');
  for (const address of ['127.0.0.1', '::1', '2001:db8::5:0:1', '::ffff:10.0.0.1']) {
    assert.equal(certificate.checkIP(address), address);
  }
  assert.equal(certificate.checkHost('example.com'), undefined);
  assert.equal(certificate.checkIP('10.0.0.1'), undefined);
});

test('a self-signed certificate is signed by its own key and is not a CA', () => {
  const { certificate: pem, privateKey } = createSelfSigned(hosts, Date.now());

  const certificate = new X509Certificate(pem);

  assert.ok(certificate.verify(certificate.publicKey));
  assert.ok(certificate.checkPrivateKey(createPrivateKey(privateKey)));
  // `certificate.ca` is also false for a CA that may not sign certificates, which rustls refuses as a server.
  const basicConstraints = Buffer.from('0603551d130101ff04023000', 'hex'); // Critical, and an empty sequence.
  assert.ok(certificate.raw.includes(basicConstraints));
  assert.equal(certificate.issuer, certificate.subject);
  assert.match(certificate.serialNumber, /^[4-7][\dA-F]{31}$/);
});

test('a self-signed certificate is valid from a day before its creation until 397 days after, also past 2050', () => {
  for (const start of ['2026-11-23T12:34:56Z', '2049-06-01T00:00:00Z', '2051-01-01T00:00:00Z']) {
    const startMs = Date.parse(start);
    const certificate = new X509Certificate(createSelfSigned(['localhost'], startMs).certificate);

    assert.equal(Date.parse(certificate.validFrom), startMs - 86_400_000);
    assert.equal(Date.parse(certificate.validTo), startMs + 397 * 86_400_000);
  }
});

test('two self-signed certificates differ in serial number and key', () => {
  const [first, second] = [createSelfSigned(hosts, 0), createSelfSigned(hosts, 0)].map(
    ({ certificate }) => new X509Certificate(certificate),
  );

  assert.notEqual(first?.serialNumber, second?.serialNumber);
  assert.notEqual(first?.fingerprint256, second?.fingerprint256);
});

test('openssl accepts a self-signed certificate in strict mode', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'herald-x509-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'server.cert');
  writeFileSync(file, createSelfSigned(hosts, Date.now()).certificate);

  const verdict = execFileSync('openssl', ['verify', '-x509_strict', '-CAfile', file, file]);
  const text = execFileSync('openssl', ['x509', '-in', file, '-noout', '-text'], {
    encoding: 'utf8',
  });

  assert.match(String(verdict), /: OK/);
  assert.match(text, /X509v3 Basic Constraints: critical\s+CA:FALSE\n/);
  assert.match(text, /X509v3 Key Usage: critical\s+Digital Signature\n/);
  assert.match(text, /Extended Key Usage:\s+TLS Web Server Authentication\n/);
  assert.match(text, /Subject: O ?= ?Herald development certificate, CN ?= ?localhost\n/);
});

test('a client that trusts a self-signed certificate connects with HTTP/2 over TLS 1.3', async (t) => {
  const { certificate, privateKey } = createSelfSigned(
    ['localhost', '127.0.0.1', '::1'],
    Date.now(),
  );
  const server = createSecureServer({ key: privateKey, cert: certificate });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;

  const client = connect(`https://127.0.0.1:${port}`, { ca: certificate });
  await withDeadline(once(client, 'connect'), 'a connection over HTTP/2');

  const socket = client.socket as TLSSocket;
  assert.equal(socket.authorized, true);
  assert.equal(socket.getProtocol(), 'TLSv1.3');
  client.close();
});

test('a renewed certificate has the key and the hosts of the old certificate', () => {
  const old = createSelfSigned(hosts, 0);
  const key = createPrivateKey(old.privateKey);

  const renewed = createSelfSigned(
    listHosts(new X509Certificate(old.certificate)),
    Date.now(),
    key,
  );

  const certificate = new X509Certificate(renewed.certificate);
  assert.equal(certificate.subjectAltName, new X509Certificate(old.certificate).subjectAltName);
  assert.ok(certificate.checkPrivateKey(key));
  assert.equal(renewed.privateKey, old.privateKey);
});

test('isGenerated() is true for a certificate of Herald and false for one of another tool', () => {
  assert.ok(isGenerated(new X509Certificate(createSelfSigned(hosts, 0).certificate)));
  assert.equal(isGenerated(new X509Certificate(createByOpenssl().cert)), false);
});

test('an empty list of hosts and an invalid host are rejected', () => {
  assert.throws(() => createSelfSigned([], 0), /no host is named/);
  for (const host of ['', 'a b', 'https://localhost', 'é.test', '-a', 'a'.repeat(300)]) {
    assert.throws(
      () => createSelfSigned([host], 0),
      /a host must be a name or an IP address/,
      host,
    );
  }
});
