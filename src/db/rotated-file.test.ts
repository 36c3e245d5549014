import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { collectingLog } from '../../test/support/recording/collecting-log.js';
import { tempFolder } from '../../test/support/servers/process.js';
import { createRotatedFile } from './rotated-file.js';

test('a rotated file is read at each call; while it is missing or empty, its last content is used', (t) => {
  const path = join(tempFolder(t), 'password');
  const lines: Record<string, unknown>[] = [];
  const log = collectingLog(lines);
  const read = createRotatedFile(path, { content: 'first', setting: 'DB_PASSWORD_FILE', log });
  const contents = [read()];

  for (const text of ['second\n', '', ' third ', undefined]) {
    if (text === undefined) rmSync(path);
    else writeFileSync(path, text);
    contents.push(read(), read());
  }

  const expected = [
    'first',
    'second',
    'second',
    'second',
    'second',
    'third',
    'third',
    'third',
    'third',
  ];
  assert.deepEqual(contents, expected);
  assert.deepEqual(
    lines.map(({ phrase, setting }) => [phrase, setting]),
    Array(3).fill(['file cannot be read, using its last content', 'DB_PASSWORD_FILE']),
  );
});
