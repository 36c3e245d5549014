import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import { test } from 'node:test';
import { collectingLog } from '../../../test/support/recording/collecting-log.js';
import { silentLogger } from '../../logging/logger.js';
import { fitConnections, type OpenFiles, OpenFilesMonitor, readOpenFiles } from './open-files.js';

test('readOpenFiles returns the number of open files and the limit', {
  skip: process.platform === 'linux' ? false : 'this system has no /proc',
}, () => {
  const before = readOpenFiles();
  const fd = openSync('/dev/null', 'r');
  const after = readOpenFiles();
  closeSync(fd);

  assert.equal(after?.open, (before?.open ?? 0) + 1);
  assert.ok((after?.max ?? 0) > (after?.open ?? 0));
});

test('MAX_CONNECTIONS is lowered only if the limit of open files has no room for it', () => {
  const lines: Record<string, unknown>[] = [];
  const log = collectingLog(lines);
  const fit = (connectionsMax: number, max: number) =>
    fitConnections(connectionsMax, { files: { open: 26, max }, reserved: 10, log });

  assert.equal(fit(1000, 1100), 1000);
  assert.deepEqual(lines, []);
  assert.equal(fit(1000, 1099), 999);
  assert.equal(fit(1000, 101), 1);
  const phrase = 'MAX_CONNECTIONS exceeds the limit of open files and is lowered';
  assert.deepEqual(lines, [
    { level: 'warn', phrase, setting: 1000, connectionsMax: 999, openFilesMax: 1099 },
    { level: 'warn', phrase, setting: 1000, connectionsMax: 1, openFilesMax: 101 },
  ]);
});

test('fitConnections throws if there is no room for one connection; without /proc it does not lower the maximum', () => {
  const options = { reserved: 10, log: silentLogger };

  assert.throws(() => fitConnections(1000, { files: { open: 26, max: 100 }, ...options }), {
    message:
      'Cannot accept connections: the limit of open files (ulimit -n) is 100, and 100 are needed without them',
  });
  assert.equal(fitConnections(1000, { files: undefined, ...options }), 1000);
});

test('a drop below 32 free descriptors is logged once, and again only after 64 were free', (t) => {
  const lines: Record<string, unknown>[] = [];
  let files: OpenFiles | undefined = { open: 0, max: 1000 };
  const monitor = new OpenFilesMonitor(collectingLog(lines), () => files);
  t.after(() => monitor.close());

  for (const open of [968, 969, 1000, 937, 936, 969]) {
    files = { open, max: 1000 };
    monitor.check();
  }
  files = undefined;
  monitor.check();

  assert.deepEqual(
    lines.map(({ level, phrase, open }) => [level, phrase, open]),
    [
      ['warn', 'open files reach their limit, connections may be dropped', 969],
      ['info', 'open files are below their limit again', 936],
      ['warn', 'open files reach their limit, connections may be dropped', 969],
    ],
  );
});
