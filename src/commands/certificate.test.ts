import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { runSource, tempFolder } from '../../test/support/servers/process.js';

const run = (cwd: string, args: readonly string[] = [], env = {}) =>
  runSource('commands/certificate.ts', args, { cwd, env });

test('both files are made, the key for its owner only, and the fingerprint is told', async (t) => {
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

test('what is there is not overwritten without --force', async (t) => {
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

test('it is for the hosts that are named', async (t) => {
  const cwd = tempFolder(t);

  const { code } = await run(cwd, ['--host', 'herald.test', '--host', '10.1.2.3']);

  assert.equal(code, 0);
  const certificate = new X509Certificate(readFileSync(join(cwd, 'certificate/server.cert')));
  assert.equal(certificate.subjectAltName, 'DNS:herald.test, IP Address:10.1.2.3');
});

test('the names come from .env, and the environment wins', async (t) => {
  const cwd = tempFolder(t);
  writeFileSync(join(cwd, '.env'), 'CERTIFICATE=from-file.cert\nPRIVATE_KEY=from-file.key\n');

  const { code } = await run(cwd, [], { PRIVATE_KEY: 'from-env.key' });

  assert.equal(code, 0);
  assert.deepEqual(readdirSync(cwd).sort(), ['.env', 'from-env.key', 'from-file.cert']);
});

// [what is wrong, arguments, environment, exit code, message]
const refusals = [
  ['an option there is not', ['--frce'], {}, 2, /^Cannot read arguments: Unknown option '--frce'/],
  ['an option without its value', ['--host'], {}, 2, /^Cannot read arguments: .*--host/],
  ['a word too many', ['now'], {}, 2, /^Cannot read arguments: unexpected argument 'now'/],
  ['a host that is none', ['--host', 'a b'], {}, 1, /^Cannot make certificate: a host must be/],
  ['a bad setting', [], { PORT: 'x' }, 1, /^Cannot start: 1 problem[\s\S]*- PORT must be/],
  [
    'a folder that cannot be',
    [],
    { PRIVATE_KEY: '/dev/null/key' },
    1,
    /^Cannot write \/dev\/null\/key\n {2}because: E(NOTDIR|EXIST)/,
  ],
] as const;

for (const [what, args, env, expected, message] of refusals) {
  test(`${what} is refused with ${expected}, without a stack trace`, async (t) => {
    const { code, out, err } = await run(tempFolder(t), args, env);

    assert.equal(code, expected);
    assert.match(err, message);
    assert.equal(/^\s+at /m.test(err), false);
    assert.equal(err.includes('Usage: npm run certificate'), expected === 2);
    assert.equal(out, '');
  });
}

test('--help tells the usage', async (t) => {
  for (const flag of ['--help', '-h']) {
    const { code, out, err } = await run(tempFolder(t), [flag]);

    assert.equal(code, 0);
    assert.match(out, /Usage: npm run certificate/);
    assert.equal(err, '');
  }
});
