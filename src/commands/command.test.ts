import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { runSource, tempFolder } from '../../test/support/servers/process.js';

const sync = (cwd: string, env: Readonly<Record<string, string>>) =>
  runSource('commands/sync.ts', [], { cwd, env });

// [description, environment, file that is created]
const precedences = [
  ['is absent', {}, 'file.db'],
  ['is empty', { DB_STORAGE: '' }, 'file.db'],
  ['is blank', { DB_STORAGE: '  ' }, 'file.db'],
  ['has a value', { DB_STORAGE: 'environment.db' }, 'environment.db'],
] as const;

for (const [what, env, expected] of precedences) {
  test(`a line of .env is ${expected === 'file.db' ? '' : 'not '}used when the environment variable ${what}`, async (t) => {
    const cwd = tempFolder(t);
    writeFileSync(join(cwd, '.env'), 'DB_STORAGE=file.db\n');

    const { code, err } = await sync(cwd, env);

    assert.equal(code, 0, err);
    assert.ok(existsSync(join(cwd, expected)));
  });
}

test('the first line of an .env file with a byte order mark is read', async (t) => {
  const cwd = tempFolder(t);
  writeFileSync(join(cwd, '.env'), '\ufeffDB_STORAGE=file.db\n');

  const { code, err } = await sync(cwd, {});

  assert.equal(code, 0, err);
  assert.ok(existsSync(join(cwd, 'file.db')));
});

for (const [encoding, bytes] of [
  ['Latin-1', Buffer.from('DB_PASSWORD=caf\u00e9\n', 'latin1')],
  ['UTF-16', Buffer.from('\ufeffDB_STORAGE=file.db\n', 'utf16le')],
] as const) {
  test(`an .env file in ${encoding} is refused`, async (t) => {
    const cwd = tempFolder(t);
    writeFileSync(join(cwd, '.env'), bytes);

    const { code, err } = await sync(cwd, {});

    assert.equal(code, 1);
    assert.equal(err, 'Cannot read .env: it is not UTF-8 text\n');
  });
}
