import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DatabaseServerOptions } from './options.js';
import { buildTlsOptions } from './tls.js';

test('a CA that a function returns is read for each connection', () => {
  let count = 0;
  const options = { host: 'db', ssl: { ca: () => `CA ${++count}` } } as unknown;

  const tls = buildTlsOptions(options as DatabaseServerOptions); // Only these members are used.

  // The packages copy the options for each connection.
  const copies = ['one', 'other'].map(() => Object.assign({}, tls || undefined));
  assert.deepEqual(
    copies.map(({ ca }) => ca),
    ['CA 1', 'CA 2'],
  );
});
