import assert from 'node:assert/strict';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { until } from '../../test/support/until.js';
import { LineFile } from './line-file.js';

const onFailing = (cause: unknown) => assert.fail(String(cause));
const formatLostNote = (lost: number) => `lost ${lost}\n`;

function tempFile(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'herald-line-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return join(folder, 'lines');
}

test('lines over the backlog limit are lost, and a log line reports their number', async (t) => {
  const path = tempFile(t);
  const file = new LineFile({ path }, { formatLostNote, onFailing });
  const line = `${'x'.repeat(1023)}\n`;

  for (let n = 0; n < 1024; n += 1) file.write(line); // 1 MiB: at the limit.
  file.write(line);
  file.write(line);
  await file.close();

  const lines = readFileSync(path, 'utf8').split('\n');
  assert.equal(lines.filter((each) => each === 'lost 2').length, 1);
  assert.equal(lines.filter((each) => each.length === 1023).length, 1024);
});

test('a new file cannot be read by others, nor written by its group', async (t) => {
  const path = tempFile(t);

  const file = new LineFile({ path }, { formatLostNote, onFailing });

  assert.equal(statSync(path).mode & 0o027, 0);
  await file.close();
});

test('a file that was moved is closed when the log is reopened', {
  skip: existsSync('/proc/self/fd') ? false : 'needs /proc',
}, async (t) => {
  const path = tempFile(t);
  const file = new LineFile({ path }, { formatLostNote, onFailing });

  renameSync(path, `${path}.1`);
  file.reopen();
  await until(() => existsSync(path));

  assert.deepEqual(openFilesNamed(path), [path]);
  await file.close();
  assert.deepEqual(openFilesNamed(path), []);
});

/** Returns the paths of the files that this process has open and whose path begins with `prefix`. */
function openFilesNamed(prefix: string): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const path = readlinkSync(`/proc/self/fd/${fd}`);
      return path.startsWith(prefix) ? [path] : [];
    } catch {
      return []; // Closed since the list was read.
    }
  });
}

test('lines arrive in order, whether written in one event-loop turn or in many', async (t) => {
  const path = tempFile(t);
  const file = new LineFile({ path }, { formatLostNote, onFailing });
  const filling = 'x'.repeat(1000);
  const written: string[] = [];

  for (let n = 0; n < 1500; n += 1) {
    const line = `${n} ${n % 2 === 0 ? filling : ''}`;
    written.push(line);
    file.write(`${line}\n`);
    if (n % 100 === 0) await new Promise(setImmediate);
  }
  await file.close();

  assert.deepEqual(readFileSync(path, 'utf8').split('\n').slice(0, -1), written);
});

test('a full disk is reported once, not once per lost line', { skip: noFullDisk() }, async () => {
  const failures: unknown[] = [];
  const onFailing = (cause: unknown) => failures.push(cause);
  const file = new LineFile({ path: '/dev/full' }, { formatLostNote, onFailing });

  for (let n = 0; n < 10; n += 1) {
    file.write('line\n');
    await new Promise(setImmediate);
  }
  await file.close();

  assert.equal(failures.length, 1);
  assert.equal((failures[0] as NodeJS.ErrnoException).code, 'ENOSPC');
});

test('flush() to a full disk returns without an error', { skip: noFullDisk() }, async () => {
  const file = new LineFile({ path: '/dev/full' }, { formatLostNote, onFailing() {} });

  file.write('line\n');
  file.flush();

  await file.close();
});

test('close() is idempotent, and write() and flush() have no effect after it', async (t) => {
  const file = new LineFile({ path: tempFile(t) }, { formatLostNote, onFailing });

  await file.close();
  await file.close();
  file.write('late\n');
  file.flush();
});

function noFullDisk(): string | false {
  return process.platform === 'linux' ? false : 'this system has no /dev/full';
}
