import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { runSource, sourceCommand, tempFolder, waitForExit } from './support/servers/process.js';
import { prepare } from './support/servers/seed.js';
import { ServerProcess } from './support/servers/server-process.js';
import { hasTerminals, onTerminal } from './support/servers/terminal.js';
import { until } from './support/until.js';

const { version } = JSON.parse(
  readFileSync(new URL('../package.json', import.meta.url), 'utf8'),
) as { version: string };

/** Invalid settings, because the output must not depend on settings. */
const env = { PORT: 'rubbish' };

// [argument, standard output]
const answers = [
  ['--help', /^Herald [\s\S]+Usage: node dist\/server\.js[\s\S]+\.env\.example[\s\S]+npm run key/],
  ['-h', /^Herald [\s\S]+Usage: node dist\/server\.js/],
  ['--version', /^\d+\.\d+\.\d+\S*\n$/],
  ['-v', /^\d+\.\d+\.\d+\S*\n$/],
] as const;

for (const [arg, expected] of answers) {
  test(`${arg} prints text and exits with 0 without starting the server or creating a file`, async (t) => {
    const cwd = tempFolder(t);

    const { code, out, err } = await runSource('server.ts', [arg], { cwd, env });

    assert.equal(code, 0, err);
    assert.match(out, expected);
    assert.ok(out.includes(version));
    assert.equal(err, '');
    assert.deepEqual(readdirSync(cwd), []);
  });
}

// [case, arguments, message]
const refusals = [
  ['an unknown option', ['--port=9001'], "Unknown option '--port'"],
  ['a misspelled option', ['--verison'], "Unknown option '--verison'"],
  ['an argument without an option', ['9001'], "unexpected argument '9001'"],
  ['a value for --version', ['--version=1'], "'-v, --version' does not take an argument"],
] as const;

for (const [what, args, message] of refusals) {
  test(`${what} is rejected with exit code 2, and no file is created`, async (t) => {
    const cwd = tempFolder(t);

    const { code, out, err } = await runSource('server.ts', args, { cwd });

    assert.equal(code, 2);
    assert.ok(err.startsWith('Cannot read arguments: ') && err.includes(message), err);
    assert.match(err, /\nUsage: node dist\/server\.js/);
    assert.equal(out, '');
    assert.deepEqual(readdirSync(cwd), []);
  });
}

test('the versions of Herald and Node are logged once', async (t) => {
  const { lines } = await ServerProcess.start(t);

  const versionLines = lines.filter((line) => 'version' in line);

  assert.deepEqual(
    versionLines.map((line) => [line['msg'], line['version'], line['node']]),
    [['listening', version, process.version]],
  );
});

test('on a terminal the server logs readable lines, including the last ones after Ctrl-C', {
  skip: hasTerminals ? false : 'script(1), which creates a terminal, is not installed',
}, async (t) => {
  const { folder, env } = await prepare({ LOG_PATH: 'logs' });
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const { PATH = '' } = process.env;
  const [command, ...args] = onTerminal(sourceCommand('server.ts', []));
  const child = spawn(command, args, {
    cwd: folder,
    env: { ...env, PATH, TERM: 'xterm', NO_COLOR: '1' },
  });
  let printed = '';
  child.stdout.on('data', (chunk) => {
    const wasListening = printed.includes('listening');
    printed += chunk;
    if (!wasListening && printed.includes('listening')) child.stdin.write('\u0003');
  });

  const { code, out } = await waitForExit(child);

  assert.equal(code, 0, out);
  assert.match(out, /\] INFO: listening \{"url":"https:[^\n]+"version":/);
  assert.match(out, /\] INFO: stopped\s*$/);
  assert.equal(out.includes('"msg"'), false);
  const logged = readFileSync(join(folder, 'logs', 'combined.log'), 'utf8');
  assert.match(logged, /^\{"level":"info","time":"20[^"]+Z",.*"msg":"stopped"\}\n$/m);
});

test('the crash report of a server contains no secret of its environment', async (t) => {
  const reports = tempFolder(t);
  const secrets = {
    ACCESS_TOKEN_SECRET: randomBytes(48).toString('hex'),
    ACCESS_TOKEN_PREVIOUS_SECRETS: randomBytes(48).toString('hex'),
    DB_PASSWORD: randomBytes(16).toString('hex'), // Not used by the embedded database.
    PASSWORD_PEPPER: `2:${randomBytes(32).toString('base64')}`,
    PASSWORD_PEPPER_PREVIOUS: `1:${randomBytes(32).toString('base64')}`,
  };
  const nodeOptions = ['--report-on-signal', `--report-directory=${reports}`];
  const server = await ServerProcess.start(t, { env: secrets, nodeOptions });

  server.signal('SIGUSR2');
  await until(() => readReport(reports) !== undefined);

  const { environmentVariables } = readReport(reports) ?? {};
  const names = Object.keys(environmentVariables ?? {});
  assert.ok(names.includes('ARGON2_TIME'));
  assert.deepEqual(
    Object.keys(secrets).filter((name) => names.includes(name)),
    [],
  );
});

/** Returns the report of Node in a folder; undefined while it is being written. */
function readReport(folder: string): { environmentVariables: object } | undefined {
  const [file] = readdirSync(folder);
  if (file === undefined) return undefined;
  try {
    return JSON.parse(readFileSync(join(folder, file), 'utf8'));
  } catch {
    return undefined; // Not complete yet.
  }
}
