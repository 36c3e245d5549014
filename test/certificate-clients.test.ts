import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { findChromium, openTrustingPage } from './support/clients/chromium.js';
import { type System, startSystem } from './support/servers/system.js';

const supportFile = (name: string) =>
  fileURLToPath(new URL(`./support/clients/${name}`, import.meta.url));
const fetchScript = 'console.log(await (await fetch(process.argv.at(-1))).text())';

// [name, variable with the trusted certificate (see certificate/README.md), command that prints the body of a URL]
const clients = [
  ['curl', 'CURL_CA_BUNDLE', ['curl', '--silent', '--show-error']],
  ['Node', 'NODE_EXTRA_CA_CERTS', [process.execPath, '--input-type=module', '-e', fetchScript]],
  ['Python', 'SSL_CERT_FILE', ['python3', supportFile('get.py')]],
  [
    'Deno (rustls)',
    'DENO_CERT',
    ['deno', 'eval', `import process from 'node:process';${fetchScript}`],
  ],
  ['Go', 'SSL_CERT_FILE', ['go', 'run', supportFile('get.go')]],
] as const;

const body = '{"status":"ok"}';

/** Returns the URLs of the health check by host name and by address. */
function listUrls(system: System): string[] {
  const { port } = new URL(system.url);
  return ['localhost', '127.0.0.1'].map((host) => `https://${host}:${port}/health/live`);
}

async function run(command: readonly string[], env: Record<string, string>): Promise<string> {
  const [program = '', ...args] = command;
  const { PATH = '', HOME = '' } = process.env;
  const options = { env: { PATH, HOME, ...env }, timeout: 120_000 };
  const { stdout } = await promisify(execFile)(program, args, options);
  return stdout.trim();
}

/** Returns the reason to skip the test of a program, or false. */
function getSkipReason(program: string): string | false {
  return spawnSync(program, ['-h']).error === undefined
    ? false
    : `NO ${program}: run test/programs.sh as root`;
}

for (const [name, variable, command] of clients) {
  test(`${name} accepts the generated certificate if it is trusted`, {
    skip: getSkipReason(command[0]),
  }, async (t) => {
    const system = await startSystem(t);
    const certificate = join(system.folder, 'server.cert');
    const urls = listUrls(system);

    for (const url of urls) {
      assert.equal(await run([...command, url], { [variable]: certificate }), body);
    }
    await assert.rejects(
      run([...command, urls[0] ?? ''], {}),
      /self[-_ ]signed|unknown authority|UnknownIssuer/i,
    );
  });
}

const chromium = findChromium();
const noChromium =
  chromium === undefined ? 'NO BROWSER: run test/browser.sh as root' : getSkipReason('certutil');

test('Chromium accepts the generated certificate if it is trusted', {
  skip: noChromium,
}, async (t) => {
  const system = await startSystem(t);
  const [url = '', ...others] = listUrls(system);
  const certificate = join(system.folder, 'server.cert');

  const page = await openTrustingPage(t, chromium ?? '', url, certificate);

  assert.equal(await page.textContent('body'), body);
  for (const other of others) {
    await page.goto(other);
    assert.equal(await page.textContent('body'), body);
  }
  await assert.rejects(openTrustingPage(t, chromium ?? '', url), /ERR_CERT_AUTHORITY_INVALID/);
});
