import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { tempFolder } from '../../../test/support/servers/process.js';
import { FileLock, openWriter, prepareFile } from './file.js';
import { loadSqlite } from './load.js';

test('files created for a database are readable by their owner only', (t) => {
  const path = prepareFile(join(tempFolder(t), 'data', 'herald.db'));

  for (const [name, mode] of [
    [join(path, '..'), 0o700],
    [path, 0o600],
    [`${path}.lock`, 0o600],
  ] as const) {
    assert.equal(statSync(name).mode & 0o777, mode, name);
  }
});

test('a process that waits for a lock file gets the lock once another connection has read the file', async (t) => {
  const Driver = await loadSqlite();
  const path = prepareFile(join(tempFolder(t), 'herald.db'));
  (await FileLock.acquire(Driver, path, { waitMs: 0 })).release();
  const reader = new Driver(`${path}.lock`, { readOnly: true });
  t.after(() => reader.close());
  reader.exec('begin');
  reader.prepare('select pid from owner').all();

  const acquiring = FileLock.acquire(Driver, path, { waitMs: 10_000 }); // Its first try has failed.
  reader.exec('commit');

  (await acquiring).release();
});

test('the writer syncs each commit to the disk', async (t) => {
  const Driver = await loadSqlite();
  const writer = openWriter(Driver, prepareFile(join(tempFolder(t), 'herald.db')));
  t.after(() => writer.close());

  const [row] = writer.prepare('pragma synchronous').all();

  assert.deepEqual(JSON.stringify(row), '{"synchronous":2}'); // FULL, see sqlite.org/pragma.html#pragma_synchronous.
});
