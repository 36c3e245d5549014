import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createFolder } from './create-folder.js';

function tempFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'herald-folder-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

test('createFolder creates a folder and its parents with the mode, and may be called again', (t) => {
  const root = tempFolder(t);

  createFolder(join(root, 'a', 'b', 'c'), 0o700);
  createFolder(join(root, 'a', 'b', 'c'), 0o700);
  createFolder(`${join(root, 'd', 'e')}/`);

  for (const name of ['a', 'a/b', 'a/b/c'])
    assert.equal(statSync(join(root, name)).mode & 0o777, 0o700);
  assert.ok(existsSync(join(root, 'd', 'e')));
});

// [description, path below a temporary folder with the file `file` and the dangling link `link`, error]
const refusals = [
  ['a file', 'file', 'EEXIST'],
  ['a folder in a file', 'file/a/b', 'ENOTDIR'],
  ['a folder in a dangling link', 'link/a', 'EEXIST'],
] as const;

for (const [what, path, code] of refusals) {
  test(`createFolder throws ${code} for ${what}`, (t) => {
    const root = tempFolder(t);
    writeFileSync(join(root, 'file'), '');
    symlinkSync('nothing', join(root, 'link'));

    assert.throws(() => createFolder(join(root, path)), { code });
  });
}

test('createFolder throws ENOENT for an empty path', () => {
  assert.throws(() => createFolder(''), { code: 'ENOENT' });
});
