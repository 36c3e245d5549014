import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  runSource,
  sourceCommand,
  startSource,
  tempFolder,
  waitForExit,
} from '../../test/support/servers/process.js';
import { hasTerminals, onTerminal } from '../../test/support/servers/terminal.js';
import { SqliteDatabase } from '../db/sqlite/sqlite.js';
import { silentLogger } from '../logging/logger.js';

const env = { ARGON2_ALLOW_WEAK: 'true', ARGON2_MEMORY_KIB: '7168', ARGON2_TIME: '1' };
const password = 'a long and quiet river';

const run = (cwd: string, args: readonly string[], input = '') =>
  runSource('commands/user.ts', args, { cwd, env, input });

test('a user is made, listed, disabled, enabled, given a password and deleted', async (t) => {
  const cwd = tempFolder(t);

  const made = await run(cwd, ['create', 'Ada', '--last-name', 'Lovelace'], `${password}\n`);
  assert.equal(made.code, 0, made.err);
  assert.equal(made.out, 'User Ada created with id 1\n');

  const steps = [
    [['list'], '', /^id +username .*\n1 +Ada +Lovelace +enabled +20.*\n$/],
    [['disable', 'ada'], '', /^User ada is disabled\n$/],
    [['list'], '', /disabled/],
    [['enable', 'ADA'], '', /^User ADA is enabled\n$/],
    [
      ['passwd', 'ada'],
      'another quiet river',
      /^User ada has a new password; all sessions ended\n$/,
    ],
    [['list', '--json'], '', /^\{"id":"1","username":"Ada","firstName":"","lastName":"Lovelace",/],
    [['delete', 'ada', '--yes'], '', /^User ada is deleted\n$/],
    [['list'], '', /^id [^\n]*\n$/],
  ] as const;
  for (const [args, input, expected] of steps) {
    const { code, out, err } = await run(cwd, args, input);
    assert.equal(code, 0, err);
    assert.match(out, expected);
  }
  const logged = readFileSync(join(cwd, 'logs/combined.log'), 'utf8');
  const events = [...logged.matchAll(/"audit":true,"event":"(\w+)"/g)].map(([, event]) => event);
  const changed = ['user_updated', 'user_updated', 'authn_password_change'];
  assert.deepEqual(events, ['user_created', ...changed, 'user_archived']);
});

test('the list of users as JSON leaves out what is kept of passwords', async (t) => {
  const cwd = tempFolder(t);
  await run(cwd, ['create', 'ada'], password);

  const { out } = await run(cwd, ['list', '--json']);

  const shown = ['id', 'username', 'firstName', 'lastName', 'createdAt'];
  assert.deepEqual(Object.keys(JSON.parse(out)), shown);
});

test('what was done is in the log, and no password is in it or in the database', async (t) => {
  const cwd = tempFolder(t);

  await run(cwd, ['create', 'ada'], `${password}\n`);

  const log = readFileSync(join(cwd, 'logs/combined.log'), 'utf8');
  assert.match(log, /"event":"user_created"/);
  for (const file of [...filesIn(cwd, 'logs'), ...filesIn(cwd, 'data')]) {
    assert.equal(readFileSync(file).includes(password), false, file);
  }
  assert.equal(statSync(join(cwd, 'data/herald.db')).mode & 0o077, 0);
});

test('users are made while a server has the database open, and it sees them', async (t) => {
  const cwd = tempFolder(t);
  const file = join(cwd, 'data/herald.db');
  const server = await SqliteDatabase.open({ dialect: 'sqlite', file, log: silentLogger });
  t.after(() => server.close());

  const { code, err } = await run(cwd, ['create', 'ada'], password);

  assert.equal(code, 0, err);
  const rows = await server.query({ texts: ['select username from users'], values: [] });
  assert.deepEqual(rows, [{ username: 'ada' }]);
});

test('a reader that has had enough ends the list quietly', async (t) => {
  const child = startSource('commands/user.ts', ['list'], { cwd: tempFolder(t), env });
  child.stdout.destroy(); // As `| head` does.

  const { code, err } = await waitForExit(child);

  assert.equal(code, 0);
  assert.equal(err, '');
});

// [what is wrong, arguments, standard input, exit code, message]
const refusals = [
  ['no command', [], '', 2, 'Cannot read arguments: no command is given'],
  ['a command there is not', ['lst'], '', 2, "Cannot read arguments: there is no command 'lst'"],
  ['a name from Object', ['constructor'], '', 2, "there is no command 'constructor'"],
  ['no username', ['create'], password, 2, 'Cannot read arguments: needs <username>'],
  ['two usernames', ['disable', 'a', 'b'], '', 2, "Cannot read arguments: unexpected argument 'b'"],
  ['an unknown option', ['list', '--all'], '', 2, "Cannot read arguments: Unknown option '--all'"],
  ['a password as an argument', ['create', 'a', '--password', 'x'], '', 2, "'--password'"],
  ['no password', ['create', 'ada'], '', 1, 'Cannot read password: standard input is empty'],
  ['an empty line', ['create', 'ada'], '\nx', 1, 'Cannot read password: standard input is empty'],
  ['a short password', ['create', 'ada'], '7 chars', 1, 'Cannot use password: it must have 8'],
  ['the username again', ['create', 'ada lovelace'], 'ada lovelace', 1, 'Cannot use password'],
  ['an endless password', ['create', 'ada'], 'x'.repeat(5000), 1, 'longer than 4096 bytes'],
  ['a username that cannot be', ['create', '\u0007'], password, 1, 'Cannot use username'],
  ['nobody', ['disable', 'nobody'], '', 1, 'Cannot find user: no such username'],
  ['deletion without --yes', ['delete', 'ada'], '', 1, '--yes confirms it'],
] as const;

for (const [what, args, input, expected, message] of refusals) {
  test(`${what} is refused with ${expected}, without a stack trace`, async (t) => {
    const { code, out, err } = await run(tempFolder(t), args, input);

    assert.equal(code, expected);
    assert.ok(err.includes(message), err);
    assert.equal(/^\s+at /m.test(err), false);
    assert.equal(err.includes('Usage: npm run user'), expected === 2);
    assert.equal(out, '');
  });
}

test('a username that is taken is refused, in any spelling', async (t) => {
  const cwd = tempFolder(t);
  await run(cwd, ['create', 'ada'], password);

  const { code, err } = await run(cwd, ['create', 'ADA'], password);

  assert.equal(code, 1);
  assert.match(err, /^Cannot create user: the username is taken\n$/);
});

const terminal = { skip: hasTerminals ? false : 'no script(1) here, which makes a terminal' };

// [what is typed at the two questions, exit code, what is said]
const typed = [
  ['the same twice', [`${password}\r`, `${password}\r`], 0, /User ada created/],
  ['a slip put right', [`x\u007f${password}\r`, `${password}\r`], 0, /User ada created/],
  ['two that differ', [`${password}\r`, 'something else\r'], 1, /the two entries differ/],
  ['Ctrl-C', ['half\u0003'], 1, /Cannot read password: interrupted/],
  ['the end of input', ['\u0004'], 1, /Cannot read password: interrupted/],
] as const;

for (const [what, answers, expected, said] of typed) {
  test(
    `at a terminal, ${what}: exit code ${expected}, and nothing is shown`,
    terminal,
    async (t) => {
      const source = sourceCommand('commands/user.ts', ['create', 'ada']);
      const [command, ...args] = onTerminal(source);
      const { PATH = '' } = process.env;
      const child = spawn(command, args, {
        cwd: tempFolder(t),
        env: { ...env, PATH, TERM: 'xterm' },
      });
      let seen = '';
      const left = [...answers];
      child.stdout.on('data', (chunk) => {
        seen += chunk;
        if (/(Password|Again): $/.test(seen)) child.stdin.write(left.shift() ?? '');
      });

      const { code, out } = await waitForExit(child);

      assert.equal(code, expected, out);
      assert.match(out, said);
      assert.equal(out.includes('river') || out.includes('half'), false);
    },
  );
}

function filesIn(cwd: string, folder: string): string[] {
  return readdirSync(join(cwd, folder)).map((name) => join(cwd, folder, name));
}
