import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { hasTerminals, onTerminal } from '../../test/support/servers/terminal.js';
import { withDeadline } from '../../test/support/with-deadline.js';
import { openLogger, silentLogger } from './logger.js';

function tempFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'herald-log-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

function readLines(path: string): Record<string, unknown>[] {
  const lines = readFileSync(path, 'utf8').split('\n').slice(0, -1);
  return lines.map((line) => JSON.parse(line));
}

test('every line is written to combined.log, errors also to error.log', async (t) => {
  const folder = join(tempFolder(t), 'made', 'for', 'it');
  const log = await openLogger({ level: 'info', folder, stdout: false });

  log.info({ port: 9001 }, 'server listens');
  log.debug({}, 'below the level');
  log.child({ part: 'db' }).error({ cause: new Error('no answer') }, 'database lost');
  await log.close();

  const [first, second, ...rest] = readLines(join(folder, 'combined.log'));
  assert.equal(rest.length, 0);
  assert.equal(first?.['msg'], 'server listens');
  assert.equal(first?.['level'], 'info');
  assert.equal(first?.['port'], 9001);
  assert.equal(second?.['part'], 'db');
  assert.match(JSON.stringify(second?.['cause']), /"stack":"Error: no answer.*logger\.test/);
  assert.deepEqual(readLines(join(folder, 'error.log')), [second]);
});

test('the time of a line is ISO 8601, in UTC, with milliseconds', async (t) => {
  const folder = tempFolder(t);
  const log = await openLogger({ level: 'info', folder, stdout: false });

  const before = new Date().toISOString();
  log.info({}, 'now');
  const after = new Date().toISOString();
  await log.close();

  const time = String(readLines(join(folder, 'combined.log'))[0]?.['time']);
  assert.match(time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  assert.ok(before <= time && time <= after, time);
});

test('secrets logged by mistake are redacted, also when nested', async (t) => {
  const folder = tempFolder(t);
  const log = await openLogger({ level: 'info', folder, stdout: false });
  const names = ['password', 'token', 'refreshToken', 'accessToken', 'streamToken'];
  const all = [...names, 'authorization', 'cookie'];

  for (const name of all) log.info({ [name]: 'hunter2' }, 'flat');
  for (const name of all) log.info({ body: { [name]: 'hunter2' } }, 'nested');
  log.info({ req: { headers: { authorization: 'hunter2', cookie: 'hunter2' } } }, 'request');
  log.child({ password: 'hunter2' }).info({}, 'child');
  log.error({ cause: Object.assign(new Error('x'), { password: 'hunter2' }) }, 'error');
  await log.close();

  const text = readFileSync(join(folder, 'combined.log'), 'utf8');
  assert.doesNotMatch(text, /hunter2/);
  assert.equal(text.split('\n').length - 1, 2 * all.length + 3);
});

test('after a file is renamed, reopen() starts a new one and no line is lost', async (t) => {
  const folder = tempFolder(t);
  const log = await openLogger({ level: 'info', folder, stdout: false });
  const [current, moved] = [join(folder, 'combined.log'), join(folder, 'combined.log.1')];

  for (let n = 0; n < 500; n += 1) log.info({ n }, 'before');
  renameSync(current, moved);
  log.reopen();
  for (let n = 500; n < 1000; n += 1) log.info({ n }, 'after');
  await log.close();

  const written = [...readLines(moved), ...readLines(current)].map((line) => line['n']);
  assert.deepEqual(
    written,
    Array.from({ length: 1000 }, (_, n) => n),
  );
  assert.ok(existsSync(join(folder, 'error.log')));
});

test('reopen() creates a deleted file again', async (t) => {
  const folder = tempFolder(t);
  const log = await openLogger({ level: 'info', folder, stdout: false });

  rmSync(join(folder, 'combined.log'));
  log.reopen();
  log.info({}, 'here again');
  await log.close();

  assert.equal(readLines(join(folder, 'combined.log'))[0]?.['msg'], 'here again');
});

test('when reopen() fails because the folder is missing, lines go to the old file', async (t) => {
  const root = tempFolder(t);
  const log = await openLogger({ level: 'info', folder: join(root, 'logs'), stdout: false });

  renameSync(join(root, 'logs'), join(root, 'moved'));
  log.reopen();
  log.info({}, 'still heard');
  await log.close();

  assert.equal(readLines(join(root, 'moved', 'combined.log'))[0]?.['msg'], 'still heard');
});

test('openLogger rejects with the folder and the setting when the folder cannot be created', async (t) => {
  const folder = tempFolder(t);
  await writeFile(join(folder, 'file'), '');

  const opening = openLogger({
    level: 'info',
    folder: join(folder, 'file', 'logs'),
    stdout: false,
  });

  await assert.rejects(opening, /^Error: Cannot open log in \/.*file\/logs: ENOTDIR; set LOG_PATH/);
});

test('openLogger rejects when the folder is not writable', { skip: isRoot() }, async (t) => {
  const folder = tempFolder(t);
  chmodSync(folder, 0o500);

  const opening = openLogger({ level: 'info', folder, stdout: false });

  await assert.rejects(opening, /Cannot open log in .*: EACCES; set LOG_PATH/);
});

test('close(), reopen() and logging have no effect after close()', async (t) => {
  const folder = tempFolder(t);
  const log = await openLogger({ level: 'info', folder, stdout: false });

  log.info({}, 'one');
  await log.close();
  await log.close();
  log.info({}, 'two');
  log.reopen();
  await log.close();

  assert.equal(readLines(join(folder, 'combined.log')).length, 1);
});

test('children of the silent logger are silent', () => {
  const child = silentLogger.child({ a: 1 });

  for (const level of ['error', 'warn', 'info', 'debug'] as const) child[level]({}, 'nothing');

  assert.equal(child, silentLogger);
});

/**
 * Runs a small program in a child process. The program has `openLogger`, and `hasWritten(count)`,
 * which resolves when `combined.log` has `count` lines: the program waits for them, because a slow
 * disk loses lines. With `terminal`, standard output is a terminal.
 */
function runProgram(program: string, folder: string, { terminal = false } = {}) {
  const log = JSON.stringify(fileURLToPath(new URL('./logger.ts', import.meta.url)));
  const source = `
    const { openLogger } = await import(${log});
    const { readFileSync } = await import('node:fs');
    const hasWritten = async (count) => {
      const lines = () => readFileSync(process.env.FOLDER + '/combined.log', 'utf8').split('\\n');
      while (lines().length <= count) await new Promise((resolve) => setTimeout(resolve, 2));
    };
    ${program}`;
  const line = [process.execPath, '--import', 'tsx', '--input-type=module', '-e', source] as const;
  const [command, ...args] = terminal ? onTerminal(line) : line;
  const env = { ...process.env, FOLDER: folder, TERM: 'xterm', NO_COLOR: '1' };
  return spawn(command, args, { env });
}

async function waitForOutcome(child: ReturnType<typeof runProgram>) {
  let [out, err] = ['', ''];
  child.stdout.on('data', (chunk) => {
    out += chunk;
  });
  child.stderr.on('data', (chunk) => {
    err += chunk;
  });
  const closed = new Promise((resolve) => child.once('close', resolve));
  const code = await withDeadline(closed, () => `the exit of the program: ${out}${err}`);
  return { code, out, err };
}

test('without a folder, all lines go to standard output only', async (t) => {
  const folder = join(tempFolder(t), 'logs');
  const child = runProgram(
    `const log = await openLogger({ level: 'info', folder: undefined });
     for (let n = 0; n < 2000; n += 1) log.info({ n }, 'line');
     await log.close();`,
    folder,
  );

  const { code, out } = await waitForOutcome(child);

  assert.equal(code, 0);
  assert.equal(out.trimEnd().split('\n').length, 2000);
  assert.equal(existsSync(folder), false);
});

test('the last lines are written when a process exits at once', async (t) => {
  const folder = tempFolder(t);
  const child = runProgram(
    `const log = await openLogger({ level: 'info', folder: process.env.FOLDER });
     log.error({ cause: new Error('broken') }, 'defect');
     process.exit(3);`,
    folder,
  );

  const { code, out } = await waitForOutcome(child);

  assert.equal(code, 3);
  assert.match(out, /"msg":"defect"/);
  assert.equal(readLines(join(folder, 'error.log')).length, 1);
});

test('a closed standard output does not end the process', async (t) => {
  const folder = tempFolder(t);
  const child = runProgram(
    `const log = await openLogger({ level: 'info', folder: process.env.FOLDER });
     process.stdin.once('data', async () => {
       for (let n = 0; n < 100; n += 1) { log.info({ n }, 'unheard'); await new Promise(setImmediate); }
       await hasWritten(101);
       await log.close();
       process.exit(0);
     });
     log.info({}, 'ready');`,
    folder,
  );
  t.after(() => child.kill('SIGKILL'));
  await withDeadline(once(child.stdout, 'data'), 'the first log line');

  child.stdout.destroy();
  child.stdin.write('go\n');

  const [code] = await withDeadline(once(child, 'close'), 'the exit of the program');
  assert.equal(code, 0);
  assert.equal(readLines(join(folder, 'combined.log')).length, 101);
});

test('a stalled reader of standard output neither blocks the process nor keeps it alive', async (t) => {
  const folder = tempFolder(t);
  const child = runProgram(
    `const log = await openLogger({ level: 'info', folder: process.env.FOLDER });
     for (let n = 0; n < 4000; n += 1) {
       log.info({ n, filling: 'x'.repeat(1000) }, 'line');
       if (n % 100 === 99) await hasWritten(n + 1);
     }
     await log.close();
     process.exit(0);`,
    folder,
  );
  child.stdout.pause();

  t.after(() => child.kill('SIGKILL'));

  const [code] = await withDeadline(once(child, 'exit'), 'the exit of the program');

  assert.equal(code, 0);
  assert.equal(readLines(join(folder, 'combined.log')).length, 4000);
  child.stdout.destroy();
});

const noTerminal = hasTerminals ? false : 'this system has no script(1), which provides a terminal';

test('lines are human-readable on a terminal and JSON in files', {
  skip: noTerminal,
}, async (t) => {
  const folder = tempFolder(t);
  const child = runProgram(
    `const log = await openLogger({ level: 'info', folder: process.env.FOLDER });
     log.info({ port: 9001, agent: 'x \\u001b[2J \\u009b2J' }, 'server listens');
     log.debug({}, 'below the level');
     log.error({ cause: new Error('no answer \\u001b[2J') }, 'database lost');
     await log.close();`,
    folder,
    { terminal: true },
  );

  const { code, out } = await waitForOutcome(child);

  assert.equal(code, 0, out);
  assert.match(out, /^\[\d\d:\d\d:\d\d\.\d{3}\] INFO: server listens \{"port":9001,/);
  assert.match(out, /\] ERROR: database lost[\s\S]+ Error: no answer .*\r\n +at /);
  assert.equal(out.includes('below the level'), false);
  assert.equal(out.includes('\u001b') || out.includes('\u009b'), false);
  const phrases = readLines(join(folder, 'combined.log')).map((line) => line['msg']);
  assert.deepEqual(phrases, ['server listens', 'database lost']);
});

test('the last lines are written to a terminal when a process exits at once', {
  skip: noTerminal,
}, async (t) => {
  const child = runProgram(
    `const log = await openLogger({ level: 'info', folder: undefined });
     for (let n = 0; n < 100; n += 1) log.info({ n }, 'line');
     log.error({ cause: new Error('broken') }, 'defect');
     process.exit(3);`,
    tempFolder(t),
    { terminal: true },
  );

  const { code, out } = await waitForOutcome(child);

  assert.equal(code, 3);
  assert.equal([...out.matchAll(/INFO: line /g)].length, 100);
  assert.match(out, /ERROR: defect[\s\S]+Error: broken/);
});

const noFullDisk = existsSync('/dev/full') ? false : 'this system has no /dev/full';
// [output, is it a terminal, expected line]
const outputs = [
  ['a pipe', false, /"time":"20[^"]+Z","pid":\d+,.*ENOSPC.*"msg":"log file cannot be written"/],
  ['a terminal', true, /\] WARN: log file cannot be written\s+cause: .*ENOSPC/],
] as const;

for (const [where, terminal, expected] of outputs) {
  const skip = noFullDisk || (terminal && noTerminal);
  test(`a full disk is reported on ${where} in the format of other lines`, { skip }, async (t) => {
    const folder = tempFolder(t);
    symlinkSync('/dev/full', join(folder, 'combined.log'));
    const child = runProgram(
      `const log = await openLogger({ level: 'info', folder: process.env.FOLDER });
       log.info({}, 'first');
       process.stdin.once('data', () => process.exit(0));`,
      folder,
      { terminal },
    );
    const ending = waitForOutcome(child);
    let seen = '';
    let isAsked = false; // A terminal echoes what is written to it, which must not be answered again.
    child.stdout.on('data', (chunk) => {
      seen += chunk;
      if (isAsked || !expected.test(seen)) return;
      isAsked = true;
      child.stdin.write('exit\n');
    });

    const { code, out } = await ending;

    assert.equal(code, 0, out);
    assert.match(out, expected);
  });
}

function isRoot(): boolean {
  return process.getuid?.() === 0;
}
