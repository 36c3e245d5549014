import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { tempFolder } from '../servers/process.js';
import { findLinesWith, searchRecord } from './secret-search.js';

const token = randomBytes(96).toString('base64');
const password = 'a "quiet" river';
const jwt = ['header', 'payload', randomBytes(32).toString('base64url')].join('.');

// [content of the line, line, whether it counts as a secret]
const lines = [
  ['a whole token', `{"msg":"x","info":"${token}"}`, true],
  ['the beginning of a token', `{"msg":"x ${token.slice(0, 70)}…"}`, true],
  ['a token in a URL', `GET /?token=${encodeURIComponent(token)}`, true],
  ['a password in JSON', JSON.stringify({ msg: `wrong: ${password}` }), true],
  ['a JWT', `authorization: Bearer ${jwt}`, true],
  ['a JWT without its signature', `${jwt.split('.', 2).join('.')}.…`, false],
  ['another token', `{"msg":"${randomBytes(96).toString('base64')}"}`, false],
] as const;

for (const [what, line, isFound] of lines) {
  test(`${what} in a log line is ${isFound ? 'found' : 'not taken for a secret'}`, () => {
    const found = findLinesWith([token, password, jwt], ['before', line, 'after']);

    assert.deepEqual(found, isFound ? [line] : []);
  });
}

test('a secret of one process is found in the lines of another', (t) => {
  const folder = tempFolder(t);
  mkdirSync(join(folder, '2'));
  writeFileSync(join(folder, '1.secrets'), `${JSON.stringify(token)}\n${JSON.stringify('x')}\n`);
  writeFileSync(join(folder, '2', 'combined.log'), `fine\nwith ${token}\nfine\n`);

  const result = searchRecord(folder);

  assert.deepEqual(result, { secretCount: 2, lineCount: 3, hits: [`with ${token}`] });
});
