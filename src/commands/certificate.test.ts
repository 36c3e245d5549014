import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { runSource, tempFolder } from '../../test/support/servers/process.js';

const run = (cwd: string, args: readonly string[] = [], env = {}) =>
  runSource('commands/certificate.ts', args, { cwd, env });

test('certificate creates both files, the key readable by its owner only, and prints the fingerprint', async (t) => {
  const cwd = tempFolder(t);

  const { code, out } = await run(cwd);

  assert.equal(code, 0);
  const certificate = new X509Certificate(readFileSync(join(cwd, 'certificate/server.cert')));
  const privateKey = createPrivateKey(readFileSync(join(cwd, 'certificate/server.key')));
  assert.ok(certificate.checkPrivateKey(privateKey));
  assert.equal(statSync(join(cwd, 'certificate/server.key')).mode & 0o777, 0o600);
  assert.ok(out.includes(certificate.fingerprint256));
  assert.match(out, /curl --cacert certificate\/server\.cert/);
  assert.deepEqual(readdirSync(join(cwd, 'certificate')).sort(), ['server.cert', 'server.key']);
});

test('certificate does not overwrite existing files without --force', async (t) => {
  const cwd = tempFolder(t);
  const env = { CERTIFICATE: 'own.pem', PRIVATE_KEY: 'own.key' };
  writeFileSync(join(cwd, 'own.key'), 'precious');

  const refused = await run(cwd, [], env);
  assert.equal(refused.code, 1);
  assert.match(
    refused.err,
    /^Cannot make certificate: files exist: own\.key; --force replaces both\n$/,
  );
  assert.equal(readFileSync(join(cwd, 'own.key'), 'utf8'), 'precious');

  const forced = await run(cwd, ['--force'], env);
  assert.equal(forced.code, 0);
  assert.match(readFileSync(join(cwd, 'own.key'), 'utf8'), /BEGIN PRIVATE KEY/);
  assert.equal(statSync(join(cwd, 'own.key')).mode & 0o777, 0o600);
});

test('the certificate is valid for the hosts given with --host', async (t) => {
  const cwd = tempFolder(t);

  const { code } = await run(cwd, ['--host', 'herald.test', '--host', '10.1.2.3']);

  assert.equal(code, 0);
  const certificate = new X509Certificate(readFileSync(join(cwd, 'certificate/server.cert')));
  assert.equal(certificate.subjectAltName, 'DNS:herald.test, IP Address:10.1.2.3');
});

test('the certificate command takes the file names from .env, unless environment variables set them', async (t) => {
  const cwd = tempFolder(t);
  writeFileSync(join(cwd, '.env'), 'CERTIFICATE=from-file.cert\nPRIVATE_KEY=from-file.key\n');

  const { code } = await run(cwd, [], { PRIVATE_KEY: 'from-env.key' });

  assert.equal(code, 0);
  assert.deepEqual(readdirSync(cwd).sort(), ['.env', 'from-env.key', 'from-file.cert']);
});

// [description, arguments, environment, exit code, message]
const refusals = [
  ['an unknown option', ['--frce'], {}, 2, /^Cannot read arguments: Unknown option '--frce'/],
  ['an option without its value', ['--host'], {}, 2, /^Cannot read arguments: .*--host/],
  ['an extra argument', ['now'], {}, 2, /^Cannot read arguments: unexpected argument 'now'/],
  ['an invalid host', ['--host', 'a b'], {}, 1, /^Cannot make certificate: a host must be/],
  ['an invalid setting', [], { PORT: 'x' }, 1, /^Cannot start: 1 problem[\s\S]*- PORT must be/],
  [
    'an impossible folder',
    [],
    { PRIVATE_KEY: '/dev/null/key' },
    1,
    /^Cannot write \/dev\/null\/key\n {2}because: E(NOTDIR|EXIST)/,
  ],
] as const;

for (const [what, args, env, expected, message] of refusals) {
  test(`certificate with ${what} exits with ${expected}, without a stack trace`, async (t) => {
    const { code, out, err } = await run(tempFolder(t), args, env);

    assert.equal(code, expected);
    assert.match(err, message);
    assert.equal(/^\s+at /m.test(err), false);
    assert.equal(err.includes('Usage: npm run certificate'), expected === 2);
    assert.equal(out, '');
  });
}

test('certificate --help prints the usage', async (t) => {
  for (const flag of ['--help', '-h']) {
    const { code, out, err } = await run(tempFolder(t), [flag]);

    assert.equal(code, 0);
    assert.match(out, /Usage: npm run certificate/);
    assert.equal(err, '');
  }
});
