import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { collectingLog } from '../../test/support/recording/collecting-log.js';
import { createByOpenssl } from '../../test/support/servers/certificate.js';
import { tempFolder } from '../../test/support/servers/process.js';
import { until } from '../../test/support/until.js';
import { type Certificate, writeCertificate } from './certificate-files.js';
import { createSelfSigned } from './self-signed.js';
import { ServerCertificate } from './server-certificate.js';

const dayMs = 86_400_000;
const expiringSoon = 'certificate expires soon';
const expired = 'certificate has expired';
const renewed = 'development certificate renewed, clients must trust it again';
const notRenewed = 'development certificate could not be renewed';

/** Prepares files, a clock that the test sets, and the options of a `ServerCertificate`. */
function prepare(t: TestContext, { isRenewalAllowed = true } = {}) {
  const folder = tempFolder(t);
  const files = {
    certificateFile: join(folder, 'server.cert'),
    privateKeyFile: join(folder, 'server.key'),
  };
  const lines: Record<string, unknown>[] = [];
  const time = { now: Date.now() };
  const changes: Certificate[] = [];
  const options = {
    ...{ files, isRenewalAllowed, log: collectingLog(lines), wallClock: () => time.now },
    onChange: (certificate: Certificate) => void changes.push(certificate),
  };
  return {
    ...{ folder, files, lines, time, changes },
    open: () => ServerCertificate.open(options),
    phrases: () => lines.map(({ phrase }) => phrase),
    /** Stores a certificate that Herald has not generated. Returns its expiry in epoch milliseconds. */
    storeForeign(days = 365): number {
      const { key, cert } = createByOpenssl({ days });
      writeFileSync(files.privateKeyFile, key);
      writeFileSync(files.certificateFile, cert);
      const { validFrom, validTo } = new X509Certificate(cert);
      time.now = Math.max(time.now, Date.parse(validFrom)); // openssl runs later than the clock was read.
      return Date.parse(validTo);
    },
    readFiles: () => ({
      cert: new X509Certificate(readFileSync(files.certificateFile)),
      key: readFileSync(files.privateKeyFile, 'utf8'),
    }),
  };
}

// [remaining validity in ms, level and message of the line]
const remaining = [
  [30 * dayMs + 1, undefined],
  [30 * dayMs, ['warn', expiringSoon, 30]],
  [dayMs - 1, ['warn', expiringSoon, 0]],
  [1, ['warn', expiringSoon, 0]],
  [0, ['error', expired, undefined]],
  [-400 * dayMs, ['error', expired, undefined]],
] as const;

for (const [leftMs, expected] of remaining) {
  test(`a certificate that expires in ${leftMs / dayMs} days is reported as ${expected?.[1] ?? 'nothing'}`, async (t) => {
    const { open, lines, time, files, storeForeign } = prepare(t);
    const expiresAtMs = storeForeign();
    time.now = expiresAtMs - leftMs;

    const certificate = await open();

    assert.equal(certificate.expiresAtMs, expiresAtMs);
    const reported = lines.map(({ level, phrase, days }) => [level, phrase, days]);
    assert.deepEqual(reported, expected === undefined ? [] : [expected]);
    for (const { file, expiresAt } of lines) {
      assert.equal(file, files.certificateFile);
      assert.equal(expiresAt, new Date(expiresAtMs).toISOString());
    }
  });
}

test('a certificate that is not valid yet is reported at the start, and each day until it is valid', async (t) => {
  const { open, lines, time, files, storeForeign, readFiles } = prepare(t);
  storeForeign();
  const validFromMs = Date.parse(readFiles().cert.validFrom);
  time.now = validFromMs - dayMs;

  const certificate = await open();

  const validFrom = new Date(validFromMs).toISOString();
  const [{ level, phrase, ...fields } = {}] = lines;
  assert.deepEqual([level, phrase], ['warn', 'certificate is not valid yet']);
  assert.deepEqual([fields['file'], fields['validFrom']], [files.certificateFile, validFrom]);
  time.now = validFromMs;
  certificate.tick();
  await setImmediate();
  assert.equal(lines.length, 1);
});

test('a running server warns about an expiring certificate once a day', async (t) => {
  const { open, lines, time, storeForeign } = prepare(t);
  time.now = storeForeign() - 30 * dayMs;
  const certificate = await open();

  for (let hour = 0; hour < 3 * 24; hour += 1) {
    time.now += dayMs / 24;
    certificate.tick();
    certificate.tick();
    await setImmediate(); // A check without a renewal is finished by then.
  }

  assert.equal(lines.length, 1 + 3);
  assert.ok(lines.every(({ phrase }) => phrase === expiringSoon));
});

test('reload() passes the new certificate to onChange, and rejects one that does not match its key', async (t) => {
  const { open, phrases, changes, files, storeForeign } = prepare(t);
  storeForeign();
  const certificate = await open();

  const expiresAtMs = storeForeign(10);
  await certificate.reload();

  assert.deepEqual(phrases(), [expiringSoon]);
  assert.equal(certificate.expiresAtMs, expiresAtMs);
  assert.deepEqual(changes, [certificate.current]);
  writeFileSync(files.privateKeyFile, createByOpenssl().key);
  await assert.rejects(certificate.reload(), /are not a matching PEM certificate and key$/);
  assert.equal(certificate.expiresAtMs, expiresAtMs);
  assert.equal(changes.length, 1);
});

test('a generated certificate that expires within 30 days is renewed at the start, with the same hosts and key', async (t) => {
  const { open, phrases, time, files, readFiles } = prepare(t);
  writeCertificate(files, ['herald.test', '10.1.2.3']);
  const before = readFiles();
  time.now = Date.parse(before.cert.validTo) - 30 * dayMs;

  const certificate = await open();

  const after = readFiles();
  assert.deepEqual(phrases(), [renewed]);
  assert.equal(Date.parse(after.cert.validTo), time.now + 397 * dayMs);
  assert.equal(certificate.expiresAtMs, Date.parse(after.cert.validTo));
  assert.equal(after.cert.subjectAltName, 'DNS:herald.test, IP Address:10.1.2.3');
  assert.equal(after.key, before.key);
  assert.ok(after.cert.fingerprint256 !== before.cert.fingerprint256);
});

test('a generated certificate that expires in more than 30 days is kept', async (t) => {
  const { open, phrases, time, files, readFiles } = prepare(t);
  const { fingerprint256, validTo } = writeCertificate(files, ['localhost']);
  time.now = Date.parse(validTo) - 30 * dayMs - 1;

  await open();

  assert.equal(readFiles().cert.fingerprint256, fingerprint256);
  assert.deepEqual(phrases(), []);
});

test('a running server renews a generated certificate and uses the new one', async (t) => {
  const { open, phrases, time, changes, files, readFiles } = prepare(t);
  const { validTo } = writeCertificate(files, ['localhost']);
  const certificate = await open();

  time.now = Date.parse(validTo) - 29 * dayMs;
  certificate.tick();
  await until(() => phrases().includes(renewed));

  assert.equal(changes.length, 1);
  assert.equal(changes[0]?.cert.toString(), readFiles().cert.toString());
  assert.equal(certificate.expiresAtMs, Date.parse(readFiles().cert.validTo));
});

test('in production a generated certificate is not renewed', async (t) => {
  const { open, phrases, time, files, readFiles } = prepare(t, { isRenewalAllowed: false });
  const { fingerprint256, validTo } = writeCertificate(files, ['localhost']);
  time.now = Date.parse(validTo) - 5 * dayMs;

  await open();

  assert.equal(readFiles().cert.fingerprint256, fingerprint256);
  assert.deepEqual(phrases(), [expiringSoon]);
});

test('a certificate of the operator is never renewed, even when it has replaced a generated one without a reload', async (t) => {
  const { open, phrases, time, files, readFiles, storeForeign } = prepare(t);
  writeCertificate(files, ['localhost']);
  const certificate = await open();
  const expiresAtMs = storeForeign(370);
  const { fingerprint256 } = readFiles().cert;

  time.now = expiresAtMs + dayMs; // The generated certificate would be due for renewal, too.
  certificate.tick();
  await until(() => phrases().length > 0);

  assert.equal(readFiles().cert.fingerprint256, fingerprint256);
  assert.equal(certificate.expiresAtMs, expiresAtMs);
  assert.deepEqual(phrases(), [expired]);
});

test('a certificate that another process has renewed is used and not renewed again', async (t) => {
  const { open, phrases, time, changes, files, readFiles } = prepare(t);
  const { validTo } = writeCertificate(files, ['localhost']);
  const [first, second] = [await open(), await open()];
  time.now = Date.parse(validTo) - dayMs;

  first.tick();
  await until(() => changes.length === 1);
  const { fingerprint256 } = readFiles().cert;
  second.tick();
  await until(() => changes.length === 2);

  assert.equal(readFiles().cert.fingerprint256, fingerprint256);
  assert.deepEqual(phrases(), [renewed]);
  assert.equal(first.expiresAtMs, second.expiresAtMs);
});

test('a renewal that fails is logged, and the certificate stays in use', async (t) => {
  const { open, lines, time, files } = prepare(t);
  const { validTo } = writeCertificate(files, ['localhost']);
  const certificate = await open();
  rmSync(files.privateKeyFile);

  time.now = Date.parse(validTo) - dayMs;
  certificate.tick();
  await until(() => lines.length === 2);

  assert.deepEqual(
    lines.map(({ level, phrase }) => [level, phrase]),
    [
      ['error', notRenewed],
      ['warn', expiringSoon],
    ],
  );
  assert.equal(certificate.expiresAtMs, Date.parse(validTo));
});

test('only the expiry of the first certificate of a chain counts', async (t) => {
  const { open, phrases, files, storeForeign } = prepare(t);
  const expiresAtMs = storeForeign();
  const old = createSelfSigned(['localhost'], 0).certificate;
  writeFileSync(files.certificateFile, readFileSync(files.certificateFile, 'utf8') + old);

  const { expiresAtMs: reported } = await open();

  assert.equal(reported, expiresAtMs);
  assert.deepEqual(phrases(), []);
});
