import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { migrate } from '../../../src/db/migrations/migrate.js';
import { openDatabase } from '../../../src/db/open.js';
import { dropStaleDatabases } from './stale-databases.js';
import { findServer, rawSql } from './test-server.js';

for (const dialect of ['postgres', 'mariadb', 'mysql'] as const) {
  const server = await findServer(dialect);
  const skip = typeof server === 'string' ? server : false;

  test(`${dialect}: a test database is dropped when its process has ended and no client is connected to it`, {
    skip,
  }, async (t) => {
    if (typeof server === 'string') return;
    const { options, administer } = server;
    // While this child process runs, no other test run on this machine drops the databases named after it.
    const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)']);
    const exit = once(child, 'exit');
    const [stale, connected] = [`herald_test_${child.pid}_1`, `herald_test_${child.pid}_2`];
    const kept = [connected, options.database];
    for (const name of [stale, ...kept]) await administer(`create database ${name}`);
    await migrate({ ...options, database: connected });
    const db = await openDatabase({ ...options, database: connected });
    t.after(async () => {
      child.kill();
      await db.close();
      for (const name of kept) await administer(`drop database if exists ${name}`);
    });
    await db.query(rawSql('select 1')); // Leaves a connection in the pool.
    child.kill();
    await exit;

    const dropped = await dropStaleDatabases(dialect);

    await assert.rejects(administer(`drop database ${stale}`), /exist/);
    for (const name of kept) assert.equal(dropped.includes(name), false, name);
    assert.equal((await db.query(rawSql('select 1'))).length, 1);
  });
}
