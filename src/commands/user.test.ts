import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import argon2 from 'argon2';
import {
  runSource,
  sourceCommand,
  startSource,
  tempFolder,
  waitForExit,
} from '../../test/support/servers/process.js';
import { hasTerminals, onTerminal } from '../../test/support/servers/terminal.js';
import { sql } from '../db/database.js';
import { SqliteDatabase } from '../db/sqlite/sqlite.js';
import { silentLogger } from '../logging/logger.js';

const env = { ARGON2_ALLOW_WEAK: 'true', ARGON2_MEMORY_KIB: '7168', ARGON2_TIME: '1' };
const password = 'a long and quiet river';

const run = (cwd: string, args: readonly string[], input = '') =>
  runSource('commands/user.ts', args, { cwd, env, input });

test('user creates, lists, disables, enables and deletes a user and sets the password', async (t) => {
  const cwd = tempFolder(t);

  const created = await run(cwd, ['create', 'Ada', '--last-name', 'Lovelace'], `${password}\n`);
  assert.equal(created.code, 0, created.err);
  assert.equal(created.out, 'User Ada created with id 1\n');

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
  assert.deepEqual(events, ['user_created', ...changed, 'user_deleted']);
});

test('user sets, shows and clears the rights of a user', async (t) => {
  const cwd = tempFolder(t);
  await run(cwd, ['create', 'Ada'], password);
  const rights = '{"orders:17":["listen","history"],"team:3:*":["presence"]}';
  const show = async () => (await run(cwd, ['rights', 'ada'])).out;
  assert.equal(await show(), '{}\n');

  const set = await run(cwd, ['rights', 'ADA', '--set', rights]);
  assert.deepEqual([set.code, set.out], [0, 'User ADA has new rights\n'], set.err);
  assert.equal(await show(), `${rights}\n`);
  const cleared = await run(cwd, ['rights', 'ada', '--clear']);
  assert.equal(cleared.code, 0, cleared.err);
  assert.equal(await show(), '{}\n');

  const logged = readFileSync(join(cwd, 'logs/combined.log'), 'utf8');
  assert.equal([...logged.matchAll(/"event":"authz_change"/g)].length, 2);
});

// [description, arguments, exit code, message]
const refusedRights = [
  ['an invalid pattern', ['--set', '{"a*":["listen"]}'], 2, '--set has an invalid pattern'],
  ['an unknown action', ['--set', '{"a":["publish"]}'], 2, '--set must give each pattern a list'],
  ['a text that is not JSON', ['--set', '{'], 2, '--set must be an object'],
  ['both options', ['--set', '{}', '--clear'], 2, '--set cannot be combined with --clear'],
  ['an unknown user', ['--set', '{}'], 1, 'Cannot find user: no such username'],
  ['an unknown user and no option', [], 1, 'Cannot find user ada: no such username'],
] as const;

test('user refuses invalid rights and unknown users', async (t) => {
  const cwd = tempFolder(t);
  await run(cwd, ['list']);

  for (const [what, args, code, message] of refusedRights) {
    const refused = await run(cwd, ['rights', 'ada', ...args]);
    assert.equal(refused.code, code, what);
    assert.ok(refused.err.includes(message), `${what}: ${refused.err}`);
    assert.equal(refused.out, '');
  }
});

test('user list --json omits password hashes', async (t) => {
  const cwd = tempFolder(t);
  await run(cwd, ['create', 'ada'], password);

  const { out } = await run(cwd, ['list', '--json']);

  const publicFields = ['id', 'username', 'firstName', 'lastName', 'createdAt'];
  assert.deepEqual(Object.keys(JSON.parse(out)), publicFields);
});

test('user logs a created account, and neither logs nor database contain its password', async (t) => {
  const cwd = tempFolder(t);

  await run(cwd, ['create', 'ada'], `${password}\n`);

  const log = readFileSync(join(cwd, 'logs/combined.log'), 'utf8');
  assert.match(log, /"event":"user_created"/);
  for (const file of [...listFiles(cwd, 'logs'), ...listFiles(cwd, 'data')]) {
    assert.equal(readFileSync(file).includes(password), false, file);
  }
  assert.equal(statSync(join(cwd, 'data/herald.db')).mode & 0o077, 0);
});

test('a server sees a user that was created while it had the database open', async (t) => {
  const cwd = tempFolder(t);
  const file = join(cwd, 'data/herald.db');
  const server = await SqliteDatabase.open({ dialect: 'sqlite', file, log: silentLogger });
  t.after(() => server.close());

  const { code, err } = await run(cwd, ['create', 'ada'], password);

  assert.equal(code, 0, err);
  const rows = await server.query({ texts: ['select username from users'], values: [] });
  assert.deepEqual(rows, [{ username: 'ada' }]);
});

test('user list exits without an error when its output pipe is closed', async (t) => {
  const child = startSource('commands/user.ts', ['list'], { cwd: tempFolder(t), env });
  child.stdout.destroy(); // Like `| head`.

  const { code, err } = await waitForExit(child);

  assert.equal(code, 0);
  assert.equal(err, '');
});

// [description, arguments, standard input, exit code, message]
const refusals = [
  ['no command', [], '', 2, 'Cannot read arguments: no command is given'],
  ['an unknown command', ['lst'], '', 2, "Cannot read arguments: there is no command 'lst'"],
  [
    'a command named like an Object member',
    ['constructor'],
    '',
    2,
    "there is no command 'constructor'",
  ],
  ['no username', ['create'], password, 2, 'Cannot read arguments: needs <username>'],
  ['two usernames', ['disable', 'a', 'b'], '', 2, "Cannot read arguments: unexpected argument 'b'"],
  ['an unknown option', ['list', '--all'], '', 2, "Cannot read arguments: Unknown option '--all'"],
  ['a password as an argument', ['create', 'a', '--password', 'x'], '', 2, "'--password'"],
  ['no password', ['create', 'ada'], '', 1, 'Cannot read password: standard input is empty'],
  ['an empty line', ['create', 'ada'], '\nx', 1, 'Cannot read password: standard input is empty'],
  ['a short password', ['create', 'ada'], '7 chars', 1, 'Cannot use password: it must have 8'],
  [
    'the username as the password',
    ['create', 'ada lovelace'],
    'ada lovelace',
    1,
    'Cannot use password',
  ],
  ['a line of 4,097 bytes', ['create', 'ada'], 'x'.repeat(4097), 1, 'longer than 4096 bytes'],
  ['a line of 4,096 bytes', ['create', 'ada'], 'x'.repeat(4096), 1, 'must be well-formed text'],
  ['blanks as the password', ['create', 'ada'], `${' '.repeat(8)}\n`, 1, 'must not be blank'],
  ['an invalid username', ['create', '\u0007'], password, 1, 'Cannot use username'],
  ['an unknown user', ['disable', 'nobody'], '', 1, 'Cannot find user: no such username'],
  ['deletion without --yes', ['delete', 'ada'], '', 1, '--yes confirms it'],
] as const;

for (const [what, args, input, expected, message] of refusals) {
  test(`user with ${what} exits with ${expected}, without a stack trace`, async (t) => {
    const { code, out, err } = await run(tempFolder(t), args, input);

    assert.equal(code, expected);
    assert.ok(err.includes(message), err);
    assert.equal(/^\s+at /m.test(err), false);
    assert.equal(err.includes('Usage: npm run user'), expected === 2);
    assert.equal(out, '');
  });
}

test('user reads only the first line of standard input, however much follows', async (t) => {
  const cwd = tempFolder(t);

  const { code, err } = await run(cwd, ['create', 'ada'], `${password}\r\n${'x'.repeat(100_000)}`);

  assert.equal(code, 0, err);
  assert.equal(await isStoredPassword(cwd, password), true);
});

const byteOrderMark = Buffer.from([0xef, 0xbb, 0xbf]);

test('user omits a byte order mark before the password', async (t) => {
  const cwd = tempFolder(t);

  const { code, err } = await runWithBytes(cwd, [byteOrderMark, Buffer.from(password)]);

  assert.equal(code, 0, err);
  assert.equal(await isStoredPassword(cwd, password), true);
});

for (const [encoding, bytes] of [
  ['Latin-1', Buffer.from('caf\u00e9 au lait noir', 'latin1')],
  ['UTF-16', Buffer.from(`\ufeff${password}`, 'utf16le')],
] as const) {
  test(`user refuses a password in ${encoding}`, async (t) => {
    const { code, err } = await runWithBytes(tempFolder(t), [bytes]);

    assert.equal(code, 1);
    assert.equal(err, 'Cannot read password: it is not UTF-8 text\n');
  });
}

test('user rejects a taken username in any spelling', async (t) => {
  const cwd = tempFolder(t);
  await run(cwd, ['create', 'ada'], password);

  const { code, err } = await run(cwd, ['create', 'ADA'], password);

  assert.equal(code, 1);
  assert.match(err, /^Cannot create user: the username is taken\n$/);
});

const terminal = {
  skip: hasTerminals ? false : 'this system has no script(1), which provides a terminal',
};

// [description, input at the two prompts, exit code, output]
const typed = [
  ['the same entry twice', [`${password}\r`, `${password}\r`], 0, /User ada created/],
  ['a corrected typo', [`x\u007f${password}\r`, `${password}\r`], 0, /User ada created/],
  ['two different entries', [`${password}\r`, 'something else\r'], 1, /the two entries differ/],
  [
    'a letter in Latin-1',
    [Buffer.from('caf\u00e9 au lait\r', 'latin1'), Buffer.from('caf\u00e9 au lait\r', 'latin1')],
    1,
    /Cannot read password: it is not UTF-8 text/,
  ],
  ['Ctrl-C', ['half\u0003'], 1, /Cannot read password: interrupted/],
  ['the end of input', ['\u0004'], 1, /Cannot read password: interrupted/],
] as const;

for (const [what, inputs, expected, message] of typed) {
  test(
    `at a terminal, user create with ${what} exits with ${expected} and echoes nothing`,
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
      const left = [...inputs];
      child.stdout.on('data', (chunk) => {
        seen += chunk;
        if (/(Password|Again): $/.test(seen)) child.stdin.write(left.shift() ?? '');
      });

      const { code, out } = await waitForExit(child);

      assert.equal(code, expected, out);
      assert.match(out, message);
      assert.equal(out.includes('river') || out.includes('half'), false);
    },
  );
}

/** Runs `user create ada` with these bytes as its standard input. */
function runWithBytes(cwd: string, input: readonly Buffer[]) {
  const child = startSource('commands/user.ts', ['create', 'ada'], { cwd, env });
  child.stdin.end(Buffer.concat(input));
  return waitForExit(child);
}

async function isStoredPassword(cwd: string, text: string): Promise<boolean> {
  const file = join(cwd, 'data/herald.db');
  const db = await SqliteDatabase.open({ dialect: 'sqlite', file, log: silentLogger });
  try {
    const [row] = await db.query<{ hash: string }>(sql`select password_hash as hash from users`);
    return await argon2.verify(row?.hash ?? '', text);
  } finally {
    await db.close();
  }
}

function listFiles(cwd: string, folder: string): string[] {
  return readdirSync(join(cwd, folder)).map((name) => join(cwd, folder, name));
}
