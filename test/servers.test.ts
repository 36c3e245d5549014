import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findServer } from './support/servers.js';

// Elsewhere a missing server only shows in the last lines of a run (`dialects.mjs`).
const isExpected = process.env['CI'] === 'true';

for (const dialect of ['postgres', 'mariadb'] as const) {
  test(`there is a ${dialect} server to test against`, {
    skip: isExpected ? false : 'only with CI=true',
  }, async () => {
    const server = await findServer(dialect);

    assert.equal(typeof server === 'string' ? server : 'found', 'found');
  });
}
